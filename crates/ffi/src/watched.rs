//! A file that is read at the start and again whenever it has changed.
//!
//! Each process has contents of its own, begins with those that were read before the fork, and looks after the file by itself.

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

/// Longest file in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Milliseconds from one look at the file to the next.
const LOOK_EVERY: u64 = 1000;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadFile<E: Error> {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// A folder, a device or the like.
    #[error("not a file")]
    NotAFile,
    /// Surely something else.
    #[error("longer than {MAX_FILE} bytes")]
    TooLong,
    /// It holds something else.
    #[error("{0}")]
    Contents(E),
}

/// What stands in a file. [Look](Watched::look) whether it has changed before you use it.
pub struct Watched<T, E: Error> {
    file: PathBuf,
    parse: fn(&[u8]) -> Result<T, E>,
    // taken by one thread of each process for moments, and by none while Kamailio forks
    state: Mutex<State<T>>,
}

struct State<T> {
    contents: Arc<T>,
    /// The file as it was when it was last read, for good or bad; none when there was none.
    seen: Option<Stamp>,
    looked_at: u64,
}

/// Tells a file from what it was.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    // a change of rights as well, so that a file that could not be read is tried again
    changed: (i64, i64),
}

impl<T, E: Error> Watched<T, E> {
    /// Reads the file.
    ///
    /// # Errors
    /// [`BadFile`] says what is wrong with it.
    pub fn new(file: PathBuf, parse: fn(&[u8]) -> Result<T, E>) -> Result<Self, BadFile<E>> {
        let seen = Some(stamp(&file)?);
        let contents = Arc::new(parse(&read(&file)?).map_err(BadFile::Contents)?);
        Ok(Watched {
            file,
            parse,
            state: Mutex::new(State {
                contents,
                seen,
                looked_at: 0,
            }),
        })
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What stood in it when it was last good.
    pub fn contents(&self) -> Arc<T> {
        Arc::clone(&self.state.lock().contents)
    }

    /// Reads the file again if it has changed, at most once a second (`now`: milliseconds). Gives what is in it now, or
    /// why that of before stays, once for each change; else none.
    pub fn look(&self, now: u64) -> Option<Result<Arc<T>, BadFile<E>>> {
        let mut state = self.state.lock();
        if now.saturating_sub(state.looked_at) < LOOK_EVERY {
            return None;
        }
        state.looked_at = now;
        let found = stamp(&self.file).ok();
        if found == state.seen {
            return None;
        }
        // as it was before it is read: what is written meanwhile is seen the next time
        state.seen = found;
        let contents = match read(&self.file) {
            Ok(bytes) => (self.parse)(&bytes).map_err(BadFile::Contents),
            Err(problem) => Err(problem),
        };
        Some(contents.map(|contents| {
            state.contents = Arc::new(contents);
            Arc::clone(&state.contents)
        }))
    }
}

impl<T, E: Error> fmt::Debug for Watched<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // what is in it may be secret
        f.debug_tuple("Watched").field(&self.file).finish()
    }
}

fn stamp(file: &Path) -> io::Result<Stamp> {
    let meta = fs::metadata(file)?;
    Ok(Stamp {
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

fn read<E: Error>(file: &Path) -> Result<Vec<u8>, BadFile<E>> {
    // before it is opened: a pipe would wait for somebody to write
    if !fs::metadata(file)?.is_file() {
        return Err(BadFile::NotAFile);
    }
    let mut bytes = Vec::new();
    File::open(file)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(BadFile::TooLong);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc_json_api::token::{KeyError, Keys};

    type KeyFile = Watched<Keys, KeyError>;

    fn open(file: &Path) -> Result<KeyFile, BadFile<KeyError>> {
        Watched::new(file.to_owned(), Keys::parse)
    }

    fn now_has(seen: Option<Result<Arc<Keys>, BadFile<KeyError>>>, keys: usize) -> bool {
        matches!(seen, Some(Ok(found)) if found.len() == keys)
    }

    const ONE: &str =
        r#"{"keys":[{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","kid":"a"}]}"#;
    const TWO: &str = r#"{"keys":[{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","kid":"a"},
        {"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","kid":"b"}]}"#;

    fn count(tokens: &KeyFile) -> usize {
        tokens.contents().len()
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys.json");
        fs::write(&file, ONE).unwrap();
        let tokens = open(&file).unwrap();
        assert!(tokens.look(5000).is_none());
        fs::write(&file, TWO).unwrap();
        assert!(
            tokens.look(5999).is_none(),
            "not before the second has passed"
        );
        assert!(now_has(tokens.look(6000), 2));
        assert!(tokens.look(7000).is_none(), "once for each change");
        // replaced, with the same size and time
        let other = dir.path().join("other");
        fs::write(&other, TWO.replace("\"b\"", "\"c\"")).unwrap();
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        File::options()
            .write(true)
            .open(&other)
            .unwrap()
            .set_modified(time)
            .unwrap();
        fs::rename(&other, &file).unwrap();
        assert!(now_has(tokens.look(8000), 2));
    }

    #[test]
    fn a_broken_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys.json");
        fs::write(&file, TWO).unwrap();
        let tokens = open(&file).unwrap();
        let mut now = 1000;
        let mut look = || {
            now += 1000;
            tokens.look(now)
        };
        for broken in ["", "{", "{\"keys\":[]}", &TWO[..TWO.len() - 1]] {
            fs::write(&file, broken).unwrap();
            assert!(
                matches!(look(), Some(Err(BadFile::Contents(_)))),
                "{broken}"
            );
            assert!(look().is_none(), "{broken}: said once");
            assert_eq!(count(&tokens), 2);
        }
        fs::write(&file, " ".repeat(MAX_FILE as usize + 1)).unwrap();
        assert!(matches!(look(), Some(Err(BadFile::TooLong))));
        fs::remove_file(&file).unwrap();
        assert!(matches!(look(), Some(Err(BadFile::Unreadable(_)))));
        assert!(look().is_none());
        fs::create_dir(&file).unwrap();
        assert!(matches!(look(), Some(Err(BadFile::NotAFile))));
        fs::remove_dir(&file).unwrap();
        assert_eq!(count(&tokens), 2);
        fs::write(&file, ONE).unwrap();
        assert!(now_has(look(), 1));
        assert_eq!(count(&tokens), 1);
    }

    #[test]
    fn what_is_no_key_file_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(open(dir.path()).unwrap_err(), BadFile::NotAFile));
        assert!(matches!(
            open(&dir.path().join("none")).unwrap_err(),
            BadFile::Unreadable(_)
        ));
        assert!(matches!(
            open(Path::new("/dev/zero")).unwrap_err(),
            BadFile::NotAFile
        ));
    }
}
