//! Tokens: secrets of one word, each in a file.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Longest content of the file in bytes, white space included. A token is sent in a header.
const LONGEST: u64 = 8 << 10;

/// Reads the token at `path`, which may have white space around it.
///
/// # Errors
///
/// Why there is none. The text names the file and does not repeat its content.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let cannot = |error: io::Error| format!("cannot read {shown}: {error}");
    let special = || format!("{shown} is not a file");
    // Checked before it is opened: opening a device can have side effects.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(special());
    }
    let file = OpenOptions::new()
        .read(true)
        // Without this, a pipe that replaced the file since the check would block.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(special());
    }
    let mut text = String::new();
    let read = file.take(LONGEST + 1).read_to_string(&mut text);
    if read.map_err(cannot)? as u64 > LONGEST {
        return Err(format!("{shown} has more than {LONGEST} bytes"));
    }
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{shown} holds no token (want one word of visible ASCII)"
        ));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_in_a_regular_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, " s3cret\n").unwrap();
        assert_eq!(read(&path).as_deref(), Ok("s3cret"));
        let long = "x".repeat(8193);
        for bad in ["", "\n", "two words", "caf\u{e9}", &long] {
            fs::write(&path, bad).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.contains("/token "), "{error}");
            assert!(bad.trim().is_empty() || !error.contains(bad), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(read(&path).is_err());
        fs::create_dir(&path).unwrap();
        assert!(read(&path).unwrap_err().ends_with("is not a file"));
    }
}
