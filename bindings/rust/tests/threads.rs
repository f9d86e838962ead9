//! Run with the path of a model in RAYDISTILL_MODEL.
use raydistill::Scorer;
use std::{env, fs, thread};

const TITLES: [&[u8]; 4] = [b"Sofa, grey", b"", b"sofa cover grey", b"oak\0table\xff"];

fn scorer() -> Scorer {
    Scorer::load(env::var("RAYDISTILL_MODEL").expect("RAYDISTILL_MODEL").as_ref()).unwrap()
}

#[test]
fn threads_share_a_scorer() {
    let scorer = scorer();
    let expected = scorer.score("grey sofa", &TITLES).unwrap();
    assert!(expected[0] != expected[3]);
    thread::scope(|scope| {
        for at in 0..16 {
            let (scorer, expected, num) = (&scorer, &expected, at % 5);
            scope.spawn(move || {
                for _ in 0..100 {
                    let found = scorer.score("grey sofa", &TITLES[..num]).unwrap();
                    assert_eq!(found, expected[..num]);
                }
            });
        }
    });
}

#[test]
fn a_text_may_be_a_string_or_bytes() {
    let scorer = scorer();
    let owned = scorer.score(String::from("grey sofa"), &[String::from("Sofa, grey")]).unwrap();
    assert_eq!(owned, scorer.score(b"grey sofa", &["Sofa, grey"]).unwrap());
    assert!(scorer.score::<_, &str>("", &[]).unwrap().is_empty());
}

#[test]
fn memory_is_given_back() {
    let resident_kib = || -> i64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let first = scorer();
    let work = |calls| {
        for at in 0..calls {
            first.score("grey sofa", &TITLES).unwrap();
            if at % 100 == 0 {
                scorer().score("grey sofa", &TITLES).unwrap();
            }
        }
    };
    work(2_000);
    let before = resident_kib();
    work(100_000);
    let grown = resident_kib() - before;
    assert!(grown < 8 << 10, "{} KiB more after 100,000 calls", grown);
}
