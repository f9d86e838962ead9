//! Scores (query, title) pairs with a raydistill model file (`model.rdm` of a bundle) on a CPU.
//!
//! ```no_run
//! let scorer = raydistill::Scorer::load("bundle/model.rdm".as_ref())?;
//! let scores = scorer.score("grey sofa", &["Sofa, grey", "Sofa cover"])?;
//! # Ok::<(), raydistill::Error>(())
//! ```
//!
//! The standard library alone; Linux and macOS. The model is mapped by the `mmap` of the C library,
//! which std links anyway: a load reads a few pages, and processes that score with one model share
//! its memory. A file in use is replaced by a rename: one that is cut kills its readers.
mod pages;

use pages::Pages;
use std::os::raw::{c_char, c_void};
use std::path::{Path, PathBuf};
use std::{error, fmt, fs, io, sync::Mutex};

extern "C" {
    fn rd_check(model: *const c_void, bytes: i64) -> i64;
    fn rd_scratch_bytes(model: *const c_void) -> i64;
    fn rd_score(
        model: *const c_void, scratch: *mut c_void, query: *const c_char, query_bytes: i64,
        titles: *const c_char, offsets: *const i64, num: i64, scores: *mut f32,
    ) -> i64;
}

/// Why a model cannot be loaded, or a call failed.
#[derive(Debug)]
pub enum Error {
    /// The file cannot be read.
    File(PathBuf, io::Error),
    /// The file is no model that the library reads; the reason.
    Model(PathBuf, &'static str),
    /// There is no memory for a call.
    Memory(io::Error),
    /// What `rd_score` returned: see `raydistill.h`.
    Code(i64),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File(path, error) => write!(f, "{}: {}", path.display(), error),
            Error::Model(path, reason) => write!(f, "{}: {}", path.display(), reason),
            Error::Memory(error) => write!(f, "scratch memory: {}", error),
            Error::Code(code) => write!(f, "rd_score returned {}", code),
        }
    }
}

impl error::Error for Error {}

/// The memory of one call at a time.
struct Worker {
    scratch: Pages,
    texts: Vec<u8>,
    offsets: Vec<i64>,
}

/// A mapped model. Threads share one: each running call has its own scratch memory, which is kept
/// for later calls, so there is as much as calls ever ran at once.
pub struct Scorer {
    model: Pages,
    idle: Mutex<Vec<Worker>>,
}

impl Scorer {
    /// Maps a model file and checks it.
    pub fn load(path: &Path) -> Result<Scorer, Error> {
        let unread = |error| Error::File(path.to_path_buf(), error);
        let file = fs::File::open(path).map_err(unread)?;
        let bytes = file.metadata().map_err(unread)?.len() as usize;
        let refused = |reason| Err(Error::Model(path.to_path_buf(), reason));
        if bytes == 0 {
            return refused("no model file");
        }
        let model = Pages::map(Some(&file), bytes).map_err(unread)?;
        match unsafe { rd_check(model.0, bytes as i64) } {
            0 => Ok(Scorer { model, idle: Mutex::new(Vec::new()) }),
            1 => refused("no model file"),
            2 => refused("a model file for another version of the library"),
            3 => refused("not complete"),
            _ => refused("a number in it is out of range"),
        }
    }

    /// Scores in 0..1 of one query's titles, in their order. Texts are UTF-8, as `&str`, `String` or
    /// bytes; for a student of single texts the query is empty.
    pub fn score<Q, T>(&self, query: Q, titles: &[T]) -> Result<Vec<f32>, Error>
    where
        Q: AsRef<[u8]>,
        T: AsRef<[u8]>,
    {
        let idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        let mut worker = idle.map_or_else(|| self.worker(), Ok)?;
        worker.texts.clear();
        worker.offsets.clear();
        worker.offsets.push(0);
        for title in titles {
            worker.texts.extend_from_slice(title.as_ref());
            worker.offsets.push(worker.texts.len() as i64);
        }
        let (query, mut scores) = (query.as_ref(), vec![0f32; titles.len()]);
        let code = unsafe {
            rd_score(
                self.model.0,
                worker.scratch.0,
                query.as_ptr().cast(),
                query.len() as i64,
                worker.texts.as_ptr().cast(),
                worker.offsets.as_ptr(),
                titles.len() as i64,
                scores.as_mut_ptr(),
            )
        };
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(worker);
        if code == 0 {
            Ok(scores)
        } else {
            Err(Error::Code(code))
        }
    }

    fn worker(&self) -> Result<Worker, Error> {
        let bytes = unsafe { rd_scratch_bytes(self.model.0) } as usize;
        let scratch = Pages::map(None, bytes).map_err(Error::Memory)?;
        Ok(Worker { scratch, texts: Vec::new(), offsets: Vec::new() })
    }
}
