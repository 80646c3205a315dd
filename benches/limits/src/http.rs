//! The little of HTTP/1.1 that publishers and the opening of a WebSocket use.

use std::io::Write;

/// The longest head, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// The longest body, in bytes.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// One request with its whole body.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: &'a str,
    /// The target without its query.
    pub path: &'a str,
    /// The key of an upgrade to WebSocket, if that is asked for.
    pub websocket_key: Option<&'a str>,
    pub body: &'a [u8],
}

/// Input that is no request, or one that is not understood here.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads the first request of `input` and says how long it is; `None` where it has not come to its end.
pub fn read(input: &[u8]) -> Result<Option<(Request<'_>, usize)>, Malformed> {
    let Some(head_length) = input.windows(4).position(|end| end == b"\r\n\r\n") else {
        return if input.len() > MAX_HEAD { Err(Malformed) } else { Ok(None) };
    };
    let head = str::from_utf8(&input[..head_length]).map_err(|_| Malformed)?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = words.next().zip(words.next()).ok_or(Malformed)?;
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let (mut body_length, mut websocket_key) = (0, None);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Malformed)?;
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case("content-length") {
            body_length = value.parse().map_err(|_| Malformed)?;
        } else if name.eq_ignore_ascii_case("sec-websocket-key") {
            websocket_key = Some(value);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Malformed);
        }
    }
    if body_length > MAX_BODY {
        return Err(Malformed);
    }
    let body_start = head_length + 4;
    let Some(body) = input.get(body_start..body_start + body_length) else { return Ok(None) };
    Ok(Some((Request { method, path, websocket_key, body }, body_start + body_length)))
}

/// Writes a 200 with a JSON body.
pub fn write_ok(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ");
    write!(out, "{}\r\n\r\n", body.len()).expect("a Vec takes all");
    out.extend_from_slice(body);
}

/// Writes a refusal, such as `404 Not Found`.
pub fn write_refusal(status: &str, out: &mut Vec<u8>) {
    write!(out, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").expect("a Vec takes all");
}

/// Writes the answer that makes the connection a WebSocket.
pub fn write_upgrade(accept: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n",
    );
    write!(out, "sec-websocket-accept: {accept}\r\n\r\n").expect("a Vec takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_requests_one_after_the_other() {
        let input = b"POST /a?x=1 HTTP/1.1\r\nHost: h\r\nCONTENT-LENGTH: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n";
        let (first, length) = read(input).unwrap().unwrap();
        assert_eq!(first, Request { method: "POST", path: "/a", websocket_key: None, body: b"abc" });
        let (second, rest) = read(&input[length..]).unwrap().unwrap();
        assert_eq!((second.method, second.path, second.body), ("GET", "/b", &b""[..]));
        assert_eq!(length + rest, input.len());
        for cut in 0..length {
            assert_eq!(read(&input[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let long = [b'a'; MAX_HEAD + 1];
        let inputs: [&[u8]; 5] =
            [b"\r\n\r\n", b"GET / HTTP/1.1\r\nnothing\r\n\r\n", chunked, &long, b"\xff \r\n\r\n"];
        for input in inputs {
            assert_eq!(read(input), Err(Malformed));
        }
        for length in ["-1", "x", "9999999999"] {
            let head = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(read(head.as_bytes()), Err(Malformed));
        }
    }
}
