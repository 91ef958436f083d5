//! The store in the file system: what processes that share it, and crashes, leave behind.
#![cfg(unix)]

use beadwork::{
    Archive, Artifact, ArtifactBytes, ArtifactKey, ArtifactStore, ContentKey, FileStore, Manifest, Put,
    Recipe, Refusal, SavedProfile,
};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Directory(path)
    }

    fn open(&self) -> FileStore {
        FileStore::open(&self.0).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn recipe() -> Recipe {
    Recipe { backend: "acorn".to_owned(), target: "x86_64".to_owned(), ..Recipe::default() }
}

fn manifest(number: u64) -> Manifest {
    Manifest::new(ContentKey::of([&number.to_le_bytes()[..]]), recipe())
}

/// Large enough that writing it takes several system calls' worth of time.
fn packed(number: u64) -> (ArtifactKey, Vec<u8>) {
    let object: Vec<u8> =
        number.to_le_bytes().into_iter().cycle().take(40_000 + number as usize % 4_096).collect();
    let manifest = manifest(number);
    (manifest.key(), Artifact::pack(&manifest, &object).unwrap())
}

fn keys(store: &FileStore) -> Vec<ArtifactKey> {
    let mut all = Vec::new();
    store.keys(&mut |key| all.push(key)).unwrap();
    all
}

fn unfinished(directory: &Directory) -> usize {
    fs::read_dir(directory.0.join("unfinished")).unwrap().count()
}

#[test]
fn a_pipe_in_the_place_of_a_file_keeps_nobody_waiting() {
    let directory = Directory::new("pipe");
    let store = directory.open();
    let (key, bytes) = packed(1);
    assert_eq!(store.put(key, &bytes, false).unwrap(), Put::Stored);
    let folder = fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().path());
    let folder = folder.into_iter().find(|path| !path.ends_with("unfinished")).unwrap();
    let file = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let profile = directory.0.join("profile");
    fs::remove_file(&file).unwrap();
    for path in [&file, &profile, &directory.0.join("unfinished").join("1")] {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }
    assert!(Artifact::open(store.get(key).unwrap().unwrap()).is_err());
    assert!(SavedProfile::open(&profile, 1).is_err());
    assert_eq!(store.put(key, &bytes, true).unwrap(), Put::Stored);
    assert_eq!(*directory.open().get(key).unwrap().unwrap(), bytes);
}

#[test]
fn a_file_store_keeps_the_first_replaces_when_told_to_and_forgets() {
    let directory = Directory::new("keeps");
    let store = directory.open();
    let (key, first) = packed(1);
    let (_, second) = packed(2);
    assert!(store.get(key).unwrap().is_none());
    assert_eq!(store.put(key, &first, false).unwrap(), Put::Stored);
    assert_eq!(store.put(key, &second, false).unwrap(), Put::Kept);
    assert_eq!(*store.get(key).unwrap().unwrap(), first);
    assert_eq!(store.put(key, &second, true).unwrap(), Put::Stored);
    assert_eq!(*directory.open().get(key).unwrap().unwrap(), second);
    assert_eq!(keys(&store), [key]);
    assert!(store.remove(key).unwrap() && !store.remove(key).unwrap());
    let _ = store.put(key, &first, false).unwrap();
    store.clear().unwrap();
    assert!(store.get(key).unwrap().is_none() && keys(&store).is_empty());
    assert_eq!(unfinished(&directory), 0);
}

#[test]
fn p30_what_is_mapped_stays_as_it_is_when_it_is_replaced_removed_or_cleared() {
    let directory = Directory::new("mapped");
    let store = directory.open();
    let (key, first) = packed(1);
    let _ = store.put(key, &first, false).unwrap();
    let mapped = store.get(key).unwrap().unwrap();
    // Packed once: an artifact says when it was made.
    let (_, second) = packed(2);
    let _ = store.put(key, &second, true).unwrap();
    assert_eq!(*mapped, first);
    let replaced = store.get(key).unwrap().unwrap();
    store.clear().unwrap();
    assert_eq!((&*mapped, &*replaced), (&*first, &*second));
}

#[test]
fn what_is_not_an_artifact_in_the_directory_is_passed_over_or_refused() {
    let directory = Directory::new("strangers");
    let store = directory.open();
    let (key, bytes) = packed(1);
    let _ = store.put(key, &bytes, false).unwrap();
    let name = key.to_string();
    let place = directory.0.join(&name[..2]);
    for stranger in
        ["README", "short.bead", &format!("{}.bead", "Z".repeat(62)), &format!("{}.bead", "é".repeat(31))]
    {
        fs::write(place.join(stranger), b"what").unwrap();
    }
    fs::write(directory.0.join("zz"), b"not a directory").unwrap();
    let artifacts = Archive::new(directory.open());
    let mut sound = 0;
    artifacts.each(|_| sound += 1).unwrap();
    assert_eq!((sound, artifacts.stats().refused()), (1, 0));
    fs::write(place.join(format!("{}.bead", &name[2..])), b"").unwrap();
    let refused = artifacts.find(manifest(1).content, &recipe(), &[]).unwrap_err();
    assert!(matches!(refused, Refusal::Truncated { .. }), "{refused}");
}

/// Not a test: what the tests below run in processes of their own.
#[test]
fn child() {
    let Ok(root) = std::env::var("BEADWORK_STORE") else { return };
    let from: u64 = std::env::var("BEADWORK_FROM").unwrap().parse().unwrap();
    let count: u64 = std::env::var("BEADWORK_COUNT").unwrap().parse().unwrap();
    let store = FileStore::open(root).unwrap();
    for number in from..from + count {
        let (key, bytes) = packed(number);
        let put = store.put(key, &bytes, number % 3 == 0).unwrap();
        println!("\nput {number} {put:?}");
        std::io::stdout().flush().unwrap();
    }
}

fn spawn(directory: &Directory, from: u64, count: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("BEADWORK_STORE", &directory.0)
        .env("BEADWORK_FROM", from.to_string())
        .env("BEADWORK_COUNT", count.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Checks every file of the store.
fn all_whole(store: &FileStore) -> Vec<ArtifactKey> {
    let all = keys(store);
    for &key in &all {
        let bytes: ArtifactBytes = store.get(key).unwrap().unwrap();
        Artifact::open_as(bytes, key, &recipe()).unwrap();
    }
    all
}

#[test]
fn a_store_holds_only_whole_artifacts_however_often_its_writers_are_killed() {
    // 200 with BEADWORK_STRESS=200.
    let kills = std::env::var("BEADWORK_STRESS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(25);
    let directory = Directory::new("killed");
    directory.open();
    let (mut left_over, mut known) = (0, 0);
    for round in 0..kills {
        let from = round * 1_000;
        let mut child = spawn(&directory, from, 1_000);
        // Killed in the middle of the writing that follows the one told of last: sooner and later ones in turn.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told: Vec<_> =
            lines.by_ref().map_while(Result::ok).filter(|line| line.starts_with("put")).take(2).collect();
        assert_eq!(told.len(), 2, "the child ended by itself");
        (0..round * 4_000).for_each(|_| std::hint::spin_loop());
        child.kill().unwrap();
        child.wait().unwrap();
        left_over += unfinished(&directory);
        let store = directory.open();
        assert_eq!(unfinished(&directory), 0, "what was left is swept away");
        let whole = all_whole(&store);
        for number in [from, from + 1] {
            assert!(whole.contains(&packed(number).0), "what was told to be there is there");
        }
        assert!(whole.len() > known);
        known = whole.len();
    }
    println!("{kills} kills, {left_over} of them while a file was being written; {known} artifacts");
}

#[test]
fn processes_that_write_the_same_artifacts_at_once_agree_on_the_first_of_each() {
    let directory = Directory::new("shared");
    let children = [(); 3].map(|()| spawn(&directory, 1, 60));
    let told: String =
        children.map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()).concat();
    let store = directory.open();
    assert_eq!(all_whole(&store).len(), 60);
    // Numbers that are not replaced on purpose.
    for number in (1..=60).filter(|number| number % 3 != 0) {
        let stored = told.matches(&format!("put {number} Stored")).count();
        let kept = told.matches(&format!("put {number} Kept")).count();
        assert_eq!((stored, kept), (1, 2), "{number}");
    }
    assert_eq!(unfinished(&directory), 0);
}

#[test]
fn opening_a_store_leaves_alone_what_others_are_writing() {
    let directory = Directory::new("sweeping");
    let mut child = spawn(&directory, 1, 150);
    // Sweeps all the while.
    while child.try_wait().unwrap().is_none() {
        directory.open();
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(all_whole(&directory.open()).len(), 150);
}
