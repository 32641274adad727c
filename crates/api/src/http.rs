//! HTTP as far as the API needs it: one request in, one response out, both as bytes.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

/// Longest request target in bytes.
const MAX_TARGET: usize = 2048;
/// Header fields of a request.
const MAX_HEADERS: usize = 64;

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    /// As it was written: methods are told by case.
    pub method: &'a str,
    /// What stands between the slashes of the path, decoded.
    pub path: Vec<Cow<'a, str>>,
    /// The names and values behind `?`, decoded, in their order.
    pub query: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    headers: Vec<(&'a str, &'a [u8])>,
    /// What follows the head.
    pub body: &'a [u8],
    /// Does the client want to send more on the same connection?
    pub keep_alive: bool,
}

/// A request that cannot be read: the status to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRequest(pub u16);

impl<'a> Request<'a> {
    /// Takes a whole request apart.
    ///
    /// # Errors
    /// [`BadRequest`] with the status.
    pub fn parse(raw: &'a [u8]) -> Result<Self, BadRequest> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut fields);
        let head = match parsed.parse(raw) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => return Err(BadRequest(400)),
            Err(httparse::Error::TooManyHeaders) => return Err(BadRequest(431)),
            Err(_) => return Err(BadRequest(400)),
        };
        let (method, target, version) = match (parsed.method, parsed.path, parsed.version) {
            (Some(method), Some(target), Some(version)) => (method, target, version),
            _ => return Err(BadRequest(400)),
        };
        if target.len() > MAX_TARGET {
            return Err(BadRequest(414));
        }
        let headers: Vec<_> = parsed.headers.iter().map(|h| (h.name, h.value)).collect();
        // a target may name the server, too (RFC 9112, section 3.2.2)
        let origin = match target.split_once("://") {
            Some((scheme, rest)) if !scheme.contains('/') => {
                rest.find('/').map_or("/", |slash| &rest[slash..])
            }
            _ => target,
        };
        let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
        let decoded = |part: &'a str| {
            percent_decode_str(part)
                .decode_utf8()
                .map_err(|_| BadRequest(400))
        };
        let mut request = Request {
            method,
            path: path
                .split('/')
                .skip(1)
                .map(decoded)
                .collect::<Result<_, _>>()?,
            query: form_urlencoded::parse(query.as_bytes()).collect(),
            headers,
            body: &raw[head..],
            keep_alive: version == 1,
        };
        if let Some(connection) = request.header("Connection") {
            let has = |word: &str| {
                connection
                    .split(',')
                    .any(|w| w.trim().eq_ignore_ascii_case(word))
            };
            request.keep_alive = !has("close") && (version == 1 || has("keep-alive"));
        }
        Ok(request)
    }

    /// The value of a header field that stands there once, as text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let mut found = self.all(name);
        let value = found.next()?;
        if found.next().is_some() {
            return None;
        }
        std::str::from_utf8(value).ok().map(str::trim)
    }

    /// Does the field stand there at all?
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    /// Is the thing with that entity tag (with its quotes) among those that a header names? `weak`: those of If-None-Match
    /// (RFC 9110, section 13.1.2) may be weak.
    pub fn names_tag(&self, header: &str, etag: &str, weak: bool) -> bool {
        self.header(header).is_some_and(|list| {
            list.split(',').map(str::trim).any(|tag| {
                tag == "*" || tag == etag || weak && tag.strip_prefix("W/") == Some(etag)
            })
        })
    }
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// Status.
    pub status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Response {
    /// Without a body.
    pub fn new(status: u16) -> Self {
        Response {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// With a body of that type.
    pub fn with_body(status: u16, kind: &'static str, body: Vec<u8>) -> Self {
        Response {
            body,
            ..Response::new(status).header("Content-Type", kind)
        }
    }

    /// Adds a header field. Control characters would make another field of it; none of ours has any.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        debug_assert!(!value.chars().any(char::is_control), "{name}");
        self.headers.push((name, value));
        self
    }

    /// The entity tag of the body.
    pub fn etag(&self) -> String {
        let digest = Sha256::digest(&self.body);
        let mut tag = String::from("\"");
        for byte in &digest[..12] {
            tag.push_str(&format!("{byte:02x}"));
        }
        tag.push('"');
        tag
    }

    /// As bytes. `head`: without the body that would follow (HEAD). `close`: the connection ends with it.
    pub fn encode(&self, head: bool, close: bool, unix_now: u64) -> Vec<u8> {
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_now));
        let mut text = format!(
            "HTTP/1.1 {} {}\r\nDate: {date}\r\n",
            self.status,
            phrase(self.status)
        );
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        // RFC 9110, section 8.6: not with 204, and with 304 only that of the body which is not sent
        if !matches!(self.status, 204 | 304) {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        if close {
            text.push_str("Connection: close\r\n");
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if !head && self.status != 304 {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// The phrase of a status (RFC 9110, section 15).
pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_in_parts() {
        let raw =
            b"PATCH /api/dn/50%2001?a=1&b=%C3%A4+x HTTP/1.1\r\nHost: h\r\nX: 1\r\nx: 2\r\n\r\n{}";
        let request = Request::parse(raw).unwrap();
        assert_eq!(request.method, "PATCH");
        assert_eq!(request.path, ["api", "dn", "50 01"]);
        assert_eq!(
            request.query,
            [("a".into(), "1".into()), ("b".into(), "ä x".into())]
        );
        assert_eq!(request.body, b"{}");
        assert_eq!(request.header("host"), Some("h"));
        assert_eq!(request.header("x"), None, "twice is not once");
        assert!(request.has("X") && !request.has("Y") && request.keep_alive);
    }

    #[test]
    fn how_long_a_connection_lives() {
        let keeps = |text: &str| Request::parse(text.as_bytes()).unwrap().keep_alive;
        assert!(!keeps("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.1\r\nConnection: x, y\r\n\r\n"));
    }

    #[test]
    fn what_is_no_request() {
        let status = |text: &str| Request::parse(text.as_bytes()).unwrap_err().0;
        assert_eq!(status("GET /"), 400);
        assert_eq!(status("GET /%ff HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(
            status(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2048))),
            414
        );
        assert_eq!(
            status(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65))),
            431
        );
    }

    #[test]
    fn a_target_with_the_server_in_it() {
        let raw = b"GET http://h:1/api/x?y=z HTTP/1.1\r\n\r\n";
        assert_eq!(Request::parse(raw).unwrap().path, ["api", "x"]);
    }

    #[test]
    fn a_response_as_bytes() {
        let response = Response::with_body(200, "text/plain", b"hi".to_vec());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(
            text(response.encode(false, true, 784_111_777)),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
        );
        assert!(text(response.encode(true, false, 0)).ends_with("Content-Length: 2\r\n\r\n"));
        assert!(!text(Response::new(204).encode(false, false, 0)).contains("Content-Length"));
        assert_ne!(
            response.etag(),
            Response::with_body(200, "text/plain", b"ho".to_vec()).etag()
        );
    }
}
