//! Memory that is mapped, by the C library that std links anyway.
use std::os::raw::{c_int, c_void};
use std::os::unix::io::AsRawFd;
use std::{fs, io, ptr};

extern "C" {
    fn mmap(
        at: *mut c_void, bytes: usize, access: c_int, flags: c_int, file: c_int, offset: i64,
    ) -> *mut c_void;
    fn munmap(at: *mut c_void, bytes: usize) -> c_int;
}

/// Mapped pages: of a file, read-only, or of memory.
pub struct Pages(pub *mut c_void, usize);

// Pages belong to no thread. Those of a model are only read.
unsafe impl Send for Pages {}
unsafe impl Sync for Pages {}

impl Pages {
    pub fn map(file: Option<&fs::File>, bytes: usize) -> io::Result<Pages> {
        const ANONYMOUS: c_int = if cfg!(target_os = "macos") { 0x1000 } else { 0x20 };
        // PROT_READ, MAP_SHARED; PROT_READ | PROT_WRITE, MAP_PRIVATE
        let (access, flags, file) = match file {
            Some(file) => (1, 1, file.as_raw_fd()),
            None => (1 | 2, 2 | ANONYMOUS, -1),
        };
        match unsafe { mmap(ptr::null_mut(), bytes, access, flags, file, 0) } {
            at if at as isize == -1 => Err(io::Error::last_os_error()),
            at => Ok(Pages(at, bytes)),
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        unsafe { munmap(self.0, self.1) };
    }
}
