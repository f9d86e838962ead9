//! `score MODEL [PAIRS]` prints a score for each line of a file or of standard input: query TAB
//! title. `score --bench MODEL PAIRS SECONDS` times calls and prints a line of JSON. In a text
//! `\t \n \r \0 \\` stand for tab, line feed, carriage return, NUL and backslash.
use raydistill::Scorer;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};
use std::{env, fs, process};

const BATCH: usize = 100; // titles of a query
const WARM_UP: usize = 200; // calls with one title that are not counted
const ESCAPE: &str = r"has a wrong escape: \t \n \r \0 and \\ are allowed";

type Pair = (Vec<u8>, Vec<u8>);

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["--bench", model, pairs, seconds] => bench(model, pairs, seconds),
        [option, ..] if option.starts_with("--") => usage(),
        [model] => score(model, None),
        [model, pairs] => score(model, Some(pairs)),
        _ => usage(),
    };
    if let Err(error) = done {
        eprintln!("{}", error);
        process::exit(1);
    }
}

fn usage() -> ! {
    eprintln!("usage: score MODEL [PAIRS] | score --bench MODEL PAIRS SECONDS");
    process::exit(2);
}

fn pairs(
    name: Option<&str>,
) -> Result<impl Iterator<Item = Result<Pair, Box<dyn Error>>>, Box<dyn Error>> {
    let file: Box<dyn BufRead> = match name {
        Some(name) => {
            let file = fs::File::open(name).map_err(|error| format!("{}: {}", name, error))?;
            Box::new(io::BufReader::new(file))
        }
        None => Box::new(io::BufReader::new(io::stdin())),
    };
    let lines = file.split(b'\n').enumerate();
    Ok(lines
        .map(|(at, line)| Ok(pair(&line?).map_err(|told| format!("line {} {}", at + 1, told))?)))
}

fn pair(line: &[u8]) -> Result<Pair, &'static str> {
    let texts: Vec<&[u8]> = line.split(|&byte| byte == b'\t').collect();
    match texts[..] {
        [query, title] => Ok((unescaped(query)?, unescaped(title)?)),
        [_] => Err("has no tab"),
        _ => Err("has more than one tab"),
    }
}

fn unescaped(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut found = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        found.push(match byte {
            b'\\' => match bytes.next() {
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                _ => return Err(ESCAPE),
            },
            byte => byte,
        });
    }
    Ok(found)
}

fn score(model: &str, name: Option<&str>) -> Result<(), Box<dyn Error>> {
    let scorer = Scorer::load(model.as_ref())?;
    let mut out = io::BufWriter::new(io::stdout());
    for pair in pairs(name)? {
        let (query, title) = pair?;
        writeln!(out, "{:.7}", scorer.score(query, &[title])?[0])?;
    }
    Ok(out.flush()?)
}

fn bench(model: &str, name: &str, seconds: &str) -> Result<(), Box<dyn Error>> {
    let scorer = Scorer::load(model.as_ref())?;
    let seconds: f64 = seconds.parse()?;
    let (mut queries, mut titles) = (Vec::new(), Vec::new());
    for pair in pairs(Some(name))? {
        let (query, title) = pair?;
        queries.push(String::from_utf8(query)?);
        titles.push(String::from_utf8(title)?);
    }
    if titles.len() < BATCH {
        return Err(format!("--bench needs {} pairs, not {}", BATCH, titles.len()).into());
    }
    // Sorted microseconds of calls with `size` titles, during half of the time.
    let timed = |size: usize| -> Result<Vec<f64>, raydistill::Error> {
        let (mut found, mut at, mut calls) = (Vec::new(), 0, 0);
        let mut end = Instant::now();
        while calls <= WARM_UP / size || Instant::now() < end {
            at = if at + size > titles.len() { 0 } else { at };
            if calls == WARM_UP / size {
                end = Instant::now() + Duration::from_secs_f64(seconds / 2.0);
            }
            let start = Instant::now();
            scorer.score(&queries[at], &titles[at..at + size])?;
            if calls >= WARM_UP / size {
                found.push(start.elapsed().as_nanos() as f64 / 1e3);
            }
            at += size;
            calls += 1;
        }
        found.sort_by(f64::total_cmp);
        Ok(found)
    };
    let (alone, batches) = (timed(1)?, timed(BATCH)?);
    println!(
        r#"{{"language": "rust", "alone_us": {:.3}, "alone_p99_us": {:.3}, "batch_us": {:.4}, "pairs": {}}}"#,
        alone[alone.len() / 2],
        alone[alone.len() * 99 / 100],
        batches[batches.len() / 2] / BATCH as f64,
        alone.len() + batches.len() * BATCH,
    );
    Ok(())
}
