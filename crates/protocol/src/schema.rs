//! The JSON Schema of all messages, made from the types: `docs/schema/rtc-json.schema.json` holds it, and a test finds any drift.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{json_schema, JsonSchema, Schema};
use serde_json::{json, Map, Value};

use crate::{Candidate, ClientMessage, ServerMessage};

/// The payload of a message that says nothing beside its type.
#[derive(JsonSchema)]
pub struct Empty {}

/// A candidate, or `null`: the key itself has to be there.
pub(crate) fn candidate_or_null(generator: &mut SchemaGenerator) -> Schema {
    let candidate = generator.subschema_for::<Candidate>();
    json_schema!({ "anyOf": [candidate, { "type": "null" }] })
}

/// The schema (draft 2020-12). `$defs` has one entry for each message, named `client.TYPE` or `server.TYPE`, and
/// `clientMessage` and `serverMessage` for all of one direction. What JSON Schema cannot say (lengths in bytes, characters
/// that the operator chooses) stands in the descriptions.
pub fn schema() -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.meta_schema = None;
            // a type of both directions is not the same in both: a client may leave out what the server always sends
            settings.inline_subschemas = true;
        })
    };
    let client = settings().for_deserialize().into_generator();
    let server = settings().for_serialize().into_generator();
    let mut definitions = Map::new();
    for (direction, all) in [
        (
            "client",
            client.into_root_schema_for::<ClientMessage>().to_value(),
        ),
        (
            "server",
            server.into_root_schema_for::<ServerMessage>().to_value(),
        ),
    ] {
        let mut variants = Vec::new();
        for variant in all["oneOf"].as_array().into_iter().flatten() {
            let kind = variant["properties"]["type"]["const"]
                .as_str()
                .unwrap_or_default();
            let name = format!("{direction}.{kind}");
            variants.push(json!({ "$ref": format!("#/$defs/{name}") }));
            definitions.insert(name, frame(direction, variant));
        }
        definitions.insert(
            format!("{direction}Message"),
            json!({ "description": all["description"], "oneOf": variants }),
        );
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages of rtc_json, version 1",
        "description": "Every text frame is one of these. Made from the types of crates/protocol by \"make docs\".",
        "oneOf": [{ "$ref": "#/$defs/clientMessage" }, { "$ref": "#/$defs/serverMessage" }],
        "$defs": definitions,
    })
}

/// One message with its three keys.
fn frame(direction: &str, variant: &Value) -> Value {
    let kind = &variant["properties"]["type"]["const"];
    let mut payload = match &variant["properties"]["payload"] {
        Value::Null => json!({ "type": "object" }),
        payload => payload.clone(),
    };
    let mut required = vec!["type", "payload", "id"];
    if direction == "server" {
        never_null(&mut payload);
    } else if payload.get("required").is_none() && payload.get("anyOf").is_none() {
        // a payload of which nothing is needed may be left out
        required.retain(|key| *key != "payload");
    }
    if kind == "transfer" {
        payload["oneOf"] = json!([{ "required": ["to"] }, { "required": ["withCallId"] }]);
    }
    json!({
        "description": variant["description"],
        "type": "object",
        "properties": {
            "type": { "const": kind },
            "payload": payload,
            "id": { "type": "string", "pattern": "^[ -~]{1,64}$" },
        },
        "required": required,
        "additionalProperties": false,
    })
}

/// What the server leaves out where there is none is never `null`.
fn never_null(schema: &mut Value) {
    let required = schema["required"].clone();
    let is_required = |key: &str| {
        required
            .as_array()
            .is_some_and(|keys| keys.iter().any(|k| k == key))
    };
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (key, property) in properties {
            never_null(property);
            if is_required(key) {
                continue;
            }
            if let Some(types) = property.get_mut("type").and_then(Value::as_array_mut) {
                types.retain(|each| each != "null");
                if let [only] = types.as_slice() {
                    property["type"] = only.clone();
                }
            }
            let either = property.get("anyOf").and_then(Value::as_array).cloned();
            if let Some([some, null]) = either.as_deref() {
                if null["type"] == "null" {
                    let mut some = some.clone();
                    some["description"] = property["description"].clone();
                    *property = some;
                }
            }
        }
    }
    for key in ["items", "anyOf"] {
        match schema.get_mut(key) {
            Some(Value::Array(each)) => each.iter_mut().for_each(never_null),
            Some(inner) => never_null(inner),
            None => {}
        }
    }
    if schema["required"].is_null() {
        if let Some(object) = schema.as_object_mut() {
            object.remove("required");
        }
    }
}
