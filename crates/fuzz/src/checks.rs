//! Rules that hold for whatever comes out of the engine.

use std::borrow::Cow;

use rtc_json_engine::Output;
use serde::Deserialize;
use serde_json::Value;

fn plain(text: &str) -> bool {
    !text.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f)
}

/// A block of header lines: nobody can have smuggled in a line of his own, or an end of the headers.
fn header_lines(headers: &str) {
    let Some(lines) = headers.strip_suffix("\r\n") else {
        assert!(headers.is_empty(), "a header without its end: {headers:?}");
        return;
    };
    for line in lines.split("\r\n") {
        assert!(plain(line), "a control character in {line:?}");
        let name = line.split(':').next().unwrap_or_default().trim_end();
        assert!(
            line.contains(':') && !name.is_empty() && !name.contains(' '),
            "no header: {line:?}"
        );
    }
}

/// Checks what a step wants done.
pub fn outputs(outputs: &[Output]) {
    for output in outputs {
        match output {
            Output::Frame { text, .. } => frame(text),
            Output::Request(request) => {
                for value in [
                    &request.uri,
                    &request.from,
                    &request.from_tag,
                    &request.to,
                    &request.to_tag,
                    &request.call_id,
                    &request.next_hop,
                ] {
                    assert!(plain(value), "a control character in {value:?}");
                }
                header_lines(&request.headers);
            }
            Output::Reply(reply) => {
                assert!((100..700).contains(&reply.code), "status {}", reply.code);
                assert!(plain(&reply.to_tag), "{:?}", reply.to_tag);
                header_lines(&reply.headers);
            }
            _ => {}
        }
    }
}

/// The three keys of a frame. Another beside them is an error, and so is one that stands twice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, rename = "id")]
    _id: Cow<'a, str>,
    payload: Payload,
}

/// Read without what stands in it, but for the code of an error.
#[derive(Deserialize)]
struct Payload {
    code: Option<Value>,
}

/// A frame for a browser is one JSON object with exactly the three keys.
pub fn frame(text: &str) {
    let frame: Frame<'_> =
        serde_json::from_str(text).expect("a frame is JSON, with its three keys");
    assert!(
        text.starts_with('{') && text.contains("\"payload\":{"),
        "{text}"
    );
    if frame.kind == "error" {
        let code = frame.payload.code.and_then(|code| code.as_u64());
        assert!(code.is_some_and(|code| code >= 300), "{text}");
    }
}
