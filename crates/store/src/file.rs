//! Opening the arena's file: whose it is, that nobody else has it open, what it says it is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::layout::{Found, Header, Identity, Layout, FORMAT, HEADER_LEN, MAGIC, MAGIC_END};
use crate::map::Map;
use crate::owner;
use crate::recover::Replaced;

/// How long a start waits for the workers of a server that was killed just now to be gone.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 1000 });
const MODE: u32 = 0o600;

/// An opened, locked and mapped file.
pub(crate) struct Opened {
    pub map: Map,
    pub file: File,
    /// The file was made new: nothing in it is to be recovered.
    pub fresh: bool,
    pub replaced: Option<Replaced>,
}

/// Opens the file or makes it.
pub(crate) fn open(path: &Path, layout: Layout, boot_id: [u8; 16]) -> Result<Opened, Error> {
    let io = |what: &'static str| {
        move |source: io::Error| Error::Io {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        // NONBLOCK: a device or a FIFO at this path must not hold up the start before it is refused
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::ELOOP | libc::EISDIR | libc::ENXIO) => Error::NotRegular(path.to_owned()),
            _ => Error::Io {
                what: "open",
                path: path.to_owned(),
                source,
            },
        })?;
    let meta = file.metadata().map_err(io("look at"))?;
    if !meta.is_file() {
        return Err(Error::NotRegular(path.to_owned()));
    }
    // SAFETY: geteuid has no preconditions.
    let user = unsafe { libc::geteuid() };
    if meta.uid() != user {
        return Err(Error::Owner {
            path: path.to_owned(),
            uid: meta.uid(),
        });
    }
    lock(&file, path)?;

    let mut head = vec![0; HEADER_LEN.min(meta.len() as usize)];
    file.read_exact_at(&mut head, 0).map_err(io("read"))?;
    let (identity, replaced) = judge(&head, meta.len(), layout.size, boot_id)
        .ok_or_else(|| Error::Foreign(path.to_owned()))?;
    if meta.mode() & 0o7777 != MODE {
        file.set_permissions(PermissionsExt::from_mode(MODE))
            .map_err(io("restrict"))?;
    }
    let fresh = identity.is_none();
    if fresh {
        file.set_len(0).map_err(io("empty"))?;
        // A crash from here on must leave a file that is known as ours
        file.write_all_at(&MAGIC, 0).map_err(io("write"))?;
        file.set_len(layout.size).map_err(io("size"))?;
    }
    // Without this, a full file system would show as SIGBUS in the middle of a call
    // SAFETY: plain system call on our file.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, layout.size as libc::off_t) } {
        0 | libc::EOPNOTSUPP | libc::EINVAL => {}
        code => return Err(io("reserve room for")(io::Error::from_raw_os_error(code))),
    }
    let identity = match identity {
        Some(identity) => identity,
        None => {
            let mut sip_key = [0; 16];
            getrandom::getrandom(&mut sip_key)
                .map_err(|e| io("get random bytes for")(io::Error::other(e)))?;
            let identity = Identity {
                format: FORMAT,
                size: layout.size,
                sip_key,
                boot_id,
            };
            file.write_all_at(&MAGIC_END, (HEADER_LEN - MAGIC_END.len()) as u64)
                .map_err(io("write"))?;
            file.write_all_at(&identity.encode(), 0)
                .map_err(io("write"))?;
            identity
        }
    };
    let map = Map::new(&file, layout, identity.sip_key).map_err(io("map"))?;
    map.header().opener.store(owner::me(), Relaxed);
    Ok(Opened {
        map,
        file,
        fresh,
        replaced,
    })
}

/// Whether what is there can be kept. None: the file has nothing to do with us.
fn judge(
    head: &[u8],
    len: u64,
    size: u64,
    boot_id: [u8; 16],
) -> Option<(Option<Identity>, Option<Replaced>)> {
    if len == 0 {
        return Some((None, None));
    }
    let identity = match Identity::decode(head) {
        Found::Foreign => return None,
        Found::OtherFormat => return Some((None, Some(Replaced::Format))),
        Found::Damaged => return Some((None, Some(Replaced::Header))),
        Found::Ours(identity) => identity,
    };
    if identity.boot_id != boot_id {
        Some((None, Some(Replaced::Boot)))
    } else if identity.size != size || len != size {
        Some((None, Some(Replaced::Size)))
    } else {
        Some((Some(identity), None))
    }
}

/// The lock belongs to the open file, which forked workers inherit: it is held until the last of them is gone.
fn lock(file: &File, path: &Path) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        // SAFETY: plain system call on our file.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        let source = io::Error::last_os_error();
        match source.raw_os_error() {
            Some(libc::EINTR) => continue,
            Some(libc::EWOULDBLOCK) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20))
            }
            Some(libc::EWOULDBLOCK) => {
                let mut opener = [0; 4];
                // A file that cannot be read names no process; the answer is the same
                let _ =
                    file.read_exact_at(&mut opener, std::mem::offset_of!(Header, opener) as u64);
                let pid = owner::pid_of(u32::from_ne_bytes(opener));
                return Err(Error::InUse {
                    path: path.to_owned(),
                    pid,
                });
            }
            _ => {
                return Err(Error::Io {
                    what: "lock",
                    path: path.to_owned(),
                    source,
                })
            }
        }
    }
}
