//! Tokens in place of passwords: the key file, and the verdict on a token.
//!
//! Each process has keys of its own, begins with those that were read before the fork, and looks after the file by itself.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rtc_json_api::token::{verify, KeyError, Keys, Rules};
use rtc_json_protocol::{Limits, Secret};

/// Longest key file in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Milliseconds from one look at the file to the next.
const LOOK_EVERY: u64 = 1000;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
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
    Keys(#[from] KeyError),
}

/// Checks tokens. Before it does, let it [look](Tokens::look) whether the file has changed.
pub struct Tokens {
    file: PathBuf,
    rules: Rules,
    // taken by one thread of each process for moments, and by none while Kamailio forks
    state: Mutex<State>,
}

struct State {
    keys: Arc<Keys>,
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

impl Tokens {
    /// Reads the key file.
    ///
    /// # Errors
    /// [`BadKeys`] says what is wrong with it.
    pub fn new(file: PathBuf, rules: Rules) -> Result<Self, BadKeys> {
        let seen = Some(stamp(&file)?);
        let keys = Arc::new(read(&file)?);
        Ok(Tokens {
            file,
            rules,
            state: Mutex::new(State {
                keys,
                seen,
                looked_at: 0,
            }),
        })
    }

    /// The key file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Reads the file again if it has changed, at most once a second (`now`: milliseconds). Gives how many keys there are now, or
    /// why those of before stay, once for each change; else none.
    pub fn look(&self, now: u64) -> Option<Result<usize, BadKeys>> {
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
        Some(read(&self.file).map(|keys| {
            let count = keys.len();
            state.keys = Arc::new(keys);
            count
        }))
    }

    /// The DN that a token is for, or why it is refused; `unix_now` in milliseconds.
    pub fn verdict(
        &self,
        token: &Secret,
        limits: &Limits,
        unix_now: u64,
    ) -> Result<String, String> {
        let keys = Arc::clone(&self.state.lock().keys);
        let claims = verify(token.expose(), &keys, &self.rules, unix_now / 1000)
            .map_err(|error| error.to_string())?;
        if limits.allows_number(&claims.subject) {
            Ok(claims.subject)
        } else {
            Err("the token's sub is not a number that can be registered".to_owned())
        }
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

fn read(file: &Path) -> Result<Keys, BadKeys> {
    // before it is opened: a pipe would wait for somebody to write
    if !fs::metadata(file)?.is_file() {
        return Err(BadKeys::NotAFile);
    }
    let mut bytes = Vec::new();
    File::open(file)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(BadKeys::TooLong);
    }
    Ok(Keys::parse(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        r#"{"keys":[{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","kid":"a"}]}"#;
    const TWO: &str = r#"{"keys":[{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","kid":"a"},
        {"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","kid":"b"}]}"#;

    fn count(tokens: &Tokens) -> usize {
        tokens.state.lock().keys.len()
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys.json");
        fs::write(&file, ONE).unwrap();
        let tokens = Tokens::new(file.clone(), Rules::default()).unwrap();
        assert!(tokens.look(5000).is_none());
        fs::write(&file, TWO).unwrap();
        assert!(
            tokens.look(5999).is_none(),
            "not before the second has passed"
        );
        assert!(matches!(tokens.look(6000), Some(Ok(2))));
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
        assert!(matches!(tokens.look(8000), Some(Ok(2))));
    }

    #[test]
    fn a_broken_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys.json");
        fs::write(&file, TWO).unwrap();
        let tokens = Tokens::new(file.clone(), Rules::default()).unwrap();
        let mut now = 1000;
        let mut look = || {
            now += 1000;
            tokens.look(now)
        };
        for broken in ["", "{", "{\"keys\":[]}", &TWO[..TWO.len() - 1]] {
            fs::write(&file, broken).unwrap();
            assert!(matches!(look(), Some(Err(BadKeys::Keys(_)))), "{broken}");
            assert!(look().is_none(), "{broken}: said once");
            assert_eq!(count(&tokens), 2);
        }
        fs::write(&file, " ".repeat(MAX_FILE as usize + 1)).unwrap();
        assert!(matches!(look(), Some(Err(BadKeys::TooLong))));
        fs::remove_file(&file).unwrap();
        assert!(matches!(look(), Some(Err(BadKeys::Unreadable(_)))));
        assert!(look().is_none());
        fs::create_dir(&file).unwrap();
        assert!(matches!(look(), Some(Err(BadKeys::NotAFile))));
        fs::remove_dir(&file).unwrap();
        assert_eq!(count(&tokens), 2);
        fs::write(&file, ONE).unwrap();
        assert!(matches!(look(), Some(Ok(1))));
        assert_eq!(count(&tokens), 1);
    }

    #[test]
    fn what_is_no_key_file_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let open = |path: &Path| {
            Tokens::new(path.to_owned(), Rules::default())
                .err()
                .unwrap()
        };
        assert!(matches!(open(dir.path()), BadKeys::NotAFile));
        assert!(matches!(
            open(&dir.path().join("none")),
            BadKeys::Unreadable(_)
        ));
        assert!(matches!(open(Path::new("/dev/zero")), BadKeys::NotAFile));
    }
}
