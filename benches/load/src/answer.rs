//! Answers to a publisher's calls: as much of HTTP/1.1 as servers use for a JSON body.

use crate::wire::Malformed;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// One whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// How many bytes it took on the wire.
    pub length: usize,
}

/// Reads the answer at the beginning of `bytes` and puts its body into `body`; `None` while it is not there as a
/// whole.
pub fn answer(bytes: &[u8], body: &mut Vec<u8>) -> Result<Option<Answer>, Malformed> {
    body.clear();
    let Some(head_length) = position(bytes, HEAD_END) else { return Ok(None) };
    let head =
        std::str::from_utf8(&bytes[..head_length]).map_err(|_| Malformed("a head that is not text"))?;
    let rest = &bytes[head_length + HEAD_END.len()..];
    let status = status(head).ok_or(Malformed("a status line that is none"))?;
    let taken = match header(head, "transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => chunked(rest, body)?,
        Some(_) => return Err(Malformed("a transfer coding that is not understood")),
        None => {
            let length = header(head, "content-length").and_then(|length| length.parse().ok());
            let length: usize = length.ok_or(Malformed("an answer without a length"))?;
            rest.get(..length).map(|content| {
                body.extend_from_slice(content);
                length
            })
        }
    };
    Ok(taken.map(|taken| Answer { status, length: head_length + HEAD_END.len() + taken }))
}

fn status(head: &str) -> Option<u16> {
    head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Joins chunks; how many bytes they took, with the end of the body.
fn chunked(bytes: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, Malformed> {
    let mut at = 0;
    loop {
        let Some(line) = position(&bytes[at..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + line]).ok().and_then(|line| line.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let size = size.filter(|size| *size <= 1 << 30).ok_or(Malformed("a chunk without a size"))?;
        at += line + 2;
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        let Some(chunk) = chunk.strip_suffix(b"\r\n") else {
            return Err(Malformed(if size == 0 { "trailers" } else { "a chunk without an end" }));
        };
        body.extend_from_slice(chunk);
        at += size + 2;
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZED: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 9\r\n\r\n{\"seq\":5}";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"se\r\n5;x=y\r\nq\":5}\r\n0\r\n\r\n";

    #[test]
    fn both_kinds_of_bodies_are_read_once_they_are_whole() {
        for (wire, status) in [(SIZED, 200), (CHUNKED, 201)] {
            let mut body = Vec::new();
            for cut in 0..wire.len() {
                assert_eq!(answer(&wire[..cut], &mut body), Ok(None), "cut at {cut}");
            }
            let followed = [wire, b"HTTP/1.1 200"].concat();
            assert_eq!(answer(&followed, &mut body), Ok(Some(Answer { status, length: wire.len() })));
            assert_eq!(body, b"{\"seq\":5}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let mut body = Vec::new();
        for wire in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        ] {
            assert!(answer(wire.as_bytes(), &mut body).is_err(), "{wire}");
        }
    }
}
