//! Generated programs do the same in every tier: same result, same output, same error on the same line.

mod common;
#[cfg(feature = "_llvm")]
mod llvm;

use std::fmt::Write;

use strand::Program;

/// xorshift64*: the same sequence in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }
}

const INTS: [&str; 9] =
    ["0", "1", "-1", "2", "7", "-3", "2147483648", "9223372036854775807", "-9223372036854775808"];
const FLOATS: [&str; 6] = ["0.0", "-1.5", "3.25", "1e300", "1e-300", "(0.0 / 0.0)"];

/// Writes programs that type-check and terminate: loops are short, and functions call only those before them.
struct Generator {
    random: Random,
    source: String,
    /// Variables in scope by type; the first of each are parameters.
    ints: Vec<String>,
    floats: Vec<String>,
    nums: Vec<String>,
    /// Variables `for` does not own, so that they can be assigned.
    assignable: usize,
    names: usize,
    functions: usize,
    loops: usize,
}

impl Generator {
    fn program(seed: u64) -> String {
        let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut g = Self {
            random,
            source: String::new(),
            ints: Vec::new(),
            floats: Vec::new(),
            nums: Vec::new(),
            assignable: 0,
            names: 0,
            functions: 0,
            loops: 0,
        };
        g.source.push_str(
            "fn li(i: int, j: int) -> int { let k = i / j; print(k); return k * 3 - i; }\nfn lf(x: float, i: int) -> float { return x * float(i); }\n",
        );
        for f in 0..3 {
            g.function(&format!("fn f{f}(i: int, x: float, j: int, y: float, k: int) -> float"), true);
            g.functions = f + 1;
        }
        g.function("fn main(i: int, j: int, k: int) -> int", false);
        g.source
    }

    fn function(&mut self, head: &str, float: bool) {
        self.ints = ["i", "j", "k"].map(str::to_owned).to_vec();
        self.floats = if float { ["x", "y"].map(str::to_owned).to_vec() } else { Vec::new() };
        writeln!(
            self.source,
            "{head} {{\nlet a = array(4, i); let b = array(3, 0.5); let z = 1.5; let c = j > k; let p = num(j); let q = num(z);"
        )
        .unwrap();
        self.floats.push("z".to_owned());
        self.nums = ["p", "q"].map(str::to_owned).to_vec();
        self.assignable = self.ints.len();
        for _ in 0..4 {
            self.statement(3);
        }
        let result = if float { self.float(3) } else { self.int(3) };
        writeln!(self.source, "return {result};\n}}").unwrap();
    }

    fn block(&mut self, depth: usize) {
        let outer = (self.ints.clone(), self.floats.clone(), self.nums.clone(), self.assignable);
        self.source.push_str("{\n");
        for _ in 0..1 + self.random.below(3) {
            self.statement(depth - 1);
        }
        self.source.push_str("}\n");
        (self.ints, self.floats, self.nums, self.assignable) = outer;
    }

    fn statement(&mut self, depth: usize) {
        let choice = if depth == 0 { self.random.below(10) } else { self.random.below(18) };
        let line = match choice {
            0 => {
                let value = self.int(3);
                self.names += 1;
                let name = format!("n{}", self.names);
                self.ints.insert(self.assignable, name.clone());
                self.assignable += 1;
                format!("let {name} = {value};")
            }
            1 => {
                let value = self.float(3);
                self.names += 1;
                self.floats.push(format!("v{}", self.names));
                format!("let v{} = {value};", self.names)
            }
            2 => format!("{} = {};", self.random.pick(&self.ints[..self.assignable]), self.int(4)),
            3 => format!("{} = {};", self.random.pick(&self.floats.clone()), self.float(4)),
            4 => format!("a[{}] = {};", self.index(), self.int(2)),
            5 => format!("b[{}] = {};", self.index(), self.float(2)),
            6 => format!("c = {};", self.condition(3)),
            7 => {
                let value = self.num(3);
                self.names += 1;
                self.nums.push(format!("m{}", self.names));
                format!("let m{} = {value};", self.names)
            }
            8 => format!("{} = {};", self.random.pick(&self.nums.clone()), self.num(3)),
            9 => format!("print({});", self.num(2)),
            10 | 11 => {
                let condition = self.condition(2);
                write!(self.source, "if {condition} ").unwrap();
                self.block(depth);
                self.source.push_str("else ");
                self.block(depth);
                String::new()
            }
            12 | 14 | 16 if self.loops < 2 => {
                self.names += 1;
                self.loops += 1;
                let name = format!("l{}", self.names);
                write!(self.source, "for {name} in {}..{} ", self.random.below(3), self.random.below(7))
                    .unwrap();
                self.ints.push(name);
                self.block(depth);
                self.ints.pop();
                self.loops -= 1;
                String::new()
            }
            13 | 15 | 17 if self.loops < 2 => {
                self.names += 1;
                self.loops += 1;
                let (name, condition) = (format!("w{}", self.names), self.condition(2));
                write!(
                    self.source,
                    "let {name} = 0; while {name} < 4 && {condition} {{ {name} = {name} + 1;"
                )
                .unwrap();
                let exit = self.condition(1);
                let way = self.random.pick(&["break", "continue"]);
                writeln!(self.source, "if {exit} {{ {way}; }} if true ").unwrap();
                self.block(depth);
                self.source.push_str("}\n");
                self.loops -= 1;
                String::new()
            }
            _ => format!("print({});", self.int(2)),
        };
        writeln!(self.source, "{line}").unwrap();
    }

    /// Mostly inside of the arrays.
    fn index(&mut self) -> String {
        let index = self.int(1);
        if self.random.below(12) == 0 { index } else { format!("({index}) & 1") }
    }

    fn condition(&mut self, depth: usize) -> String {
        let op = self.random.pick(&["<", "<=", ">", ">=", "==", "!="]);
        match if depth == 0 { self.random.below(4) } else { self.random.below(7) } {
            0 => format!("{} {op} {}", self.int(1), self.int(1)),
            1 => format!("{} {op} {}", self.float(1), self.float(1)),
            2 => "c".to_owned(),
            3 => format!("{} {op} {}", self.num(1), self.num(1)),
            4 => format!("!({})", self.condition(depth - 1)),
            5 => format!("({}) && ({})", self.condition(depth - 1), self.condition(depth - 1)),
            _ => format!("(({}) || ({}))", self.condition(depth - 1), self.condition(depth - 1)),
        }
    }

    fn int(&mut self, depth: usize) -> String {
        if depth == 0 {
            return if self.random.below(3) == 0 {
                self.random.pick(&INTS).to_owned()
            } else {
                self.random.pick(&self.ints.clone())
            };
        }
        match self.random.below(14) {
            0..5 => {
                let op = self.random.pick(&["+", "-", "*", "&", "|", "^", "<<", ">>"]);
                format!("({} {op} {})", self.int(depth - 1), self.int(depth - 1))
            }
            5 => {
                let (op, guard) =
                    (self.random.pick(&["/", "%"]), self.random.pick(&["", " | 1", " | 1", " | 1"]));
                format!("({} {op} ({}{guard}))", self.int(depth - 1), self.int(depth - 1))
            }
            6 => format!(
                "({} {} {})",
                self.int(depth - 1),
                self.random.pick(&["/", "%"]),
                self.random.pick(&["3", "-1", "8", "-7"])
            ),
            7 => format!("a[{}]", self.index()),
            8 => format!("int({})", self.float(depth - 1)),
            9 => format!("int({})", self.condition(1)),
            10 => format!("-({})", self.int(depth - 1)),
            11 => format!("int({})", self.num(depth - 1)),
            12 => format!("li({}, {} | 1)", self.int(depth - 1), self.int(1)),
            _ => self.int(0),
        }
    }

    /// Mostly small integers, so that code that bets on them wins now and then.
    fn num(&mut self, depth: usize) -> String {
        if depth == 0 {
            return match self.random.below(6) {
                0..3 => self.random.pick(&self.nums.clone()),
                3 => format!("num({})", self.random.pick(&["1", "-1", "3", "2147483647", "0"])),
                4 => format!("num({})", self.random.pick(&self.ints.clone())),
                _ => format!("num({})", self.random.pick(&FLOATS)),
            };
        }
        match self.random.below(8) {
            0..5 => {
                let op = self.random.pick(&["+", "-", "*", "/"]);
                format!("({} {op} {})", self.num(depth - 1), self.num(depth - 1))
            }
            5 => format!("-({})", self.num(depth - 1)),
            6 => format!("num({} & 255)", self.int(depth - 1)),
            _ => self.num(0),
        }
    }

    fn float(&mut self, depth: usize) -> String {
        if depth == 0 {
            return if self.random.below(3) == 0 {
                self.random.pick(&FLOATS).to_owned()
            } else {
                self.random.pick(&self.floats.clone())
            };
        }
        match self.random.below(12) {
            0..4 => {
                let op = self.random.pick(&["+", "-", "*", "/"]);
                format!("({} {op} {})", self.float(depth - 1), self.float(depth - 1))
            }
            4 => format!("sqrt({})", self.float(depth - 1)),
            5 => format!("float({})", self.int(depth - 1)),
            6 => format!("b[{}]", self.index()),
            7 => format!("-({})", self.float(depth - 1)),
            8 => format!("float({})", self.num(depth - 1)),
            9 => format!("lf({}, {})", self.float(depth - 1), self.int(1)),
            10 if self.functions > 0 && self.loops == 0 => {
                let f = self.random.below(self.functions);
                let (i, x, j, y) = (self.int(1), self.float(1), self.int(1), self.float(1));
                format!("f{f}({i}, {x}, {j}, {y}, {})", self.int(1))
            }
            _ => self.float(0),
        }
    }
}

#[test]
fn generated_programs_do_the_same_in_every_tier() {
    let (mut values, mut errors, mut transfers, mut bailouts) = (0, 0, 0, 0);
    for seed in 1..=20 {
        let source = Generator::program(seed);
        let program =
            Program::parse("generated", &source).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{source}"));
        let tiers = common::Tiers::new(&program);
        for args in [[3, -2, 5], [i64::MIN, i64::MAX, 0]] {
            let mut outcomes = tiers.run(&args).into_iter();
            let text = |(result, output): common::Outcome| {
                (result.map_or_else(|e| e.to_string(), |v| v.to_string()), output)
            };
            let (_, expected) = outcomes.next().unwrap();
            if expected.0.is_ok() {
                values += 1
            } else {
                errors += 1
            }
            let expected = text(expected);
            for (tier, outcome) in outcomes {
                assert_eq!(text(outcome), expected, "seed {seed}, {args:?}, {tier}\n{source}");
            }
        }
        transfers += tiers.transfers.into_inner();
        bailouts += tiers.bailouts.into_inner();
    }
    assert!(transfers > 60, "only {transfers} loops went native half-way");
    assert!(bailouts > 200, "only {bailouts} guards failed");
    assert!(values >= 15 && errors >= 5, "{values} values and {errors} errors: one side is hardly tested");
}

#[test]
fn a_copy_of_a_callee_takes_a_frame_like_the_call() {
    let source = "
        fn leaf(x: int) -> int { return x + 1; }
        fn down(n: int) -> int { if n == 0 { return leaf(n); } return down(n - 1); }
        fn main(n: int) -> int { for i in 0..3 { down(n - i); } return down(n); }";
    let program = Program::parse("deep", source).unwrap();
    let tiers = common::Tiers::new(&program);
    // `main`, `n + 1` times `down`, and `leaf`: just as many frames as there are, and one more.
    for n in [9_997, 9_998] {
        for (tier, (result, _)) in tiers.run(&[n]) {
            let text = result.map_or_else(|error| error.to_string(), |value| value.to_string());
            let expected = if n == 9_997 { "1" } else { "deep:2: recursion too deep in `leaf`" };
            assert!(text.starts_with(expected), "{tier}, {n}: {text}");
        }
    }
}

#[cfg(feature = "_llvm")]
#[test]
fn generated_programs_do_the_same_by_llvm_and_mixed_with_other_tiers() {
    let mut transfers = 0;
    for seed in 1..=20 {
        let source = Generator::program(seed);
        let program = std::sync::Arc::new(Program::parse("generated", &source).unwrap());
        let mut tiers = llvm::LlvmTiers::new(&program);
        for args in [[3, -2, 5], [i64::MIN, i64::MAX, 0]] {
            let text = |(result, output): common::Outcome| {
                (result.map_or_else(|e| e.to_string(), |v| v.to_string()), output)
            };
            let expected = text(common::interpret(&program, &args));
            for (tier, outcome) in tiers.run(&args) {
                assert_eq!(text(outcome), expected, "seed {seed}, {args:?}, {tier}\n{source}");
            }
        }
        transfers += tiers.transfers;
    }
    assert!(transfers >= 20, "only {transfers} loops went native half-way");
}
