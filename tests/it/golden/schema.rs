//! The part of JSON Schema 2020-12 that `docs/events.schema.json` uses. A keyword it does not know is an error, so that none is passed over.

use std::fs;
use std::path::Path;

use serde_json::Value;

pub(super) struct Schema(Value);

impl Schema {
    pub(super) fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.schema.json");
        Self(serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    }

    pub(super) fn check(&self, event: &Value) -> Result<(), String> {
        self.against(&self.0, event, "")
    }

    fn against(&self, schema: &Value, v: &Value, at: &str) -> Result<(), String> {
        for (keyword, rule) in schema.as_object().ok_or("a schema is an object")? {
            match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "additionalProperties" => {}
                "$ref" => self.against(self.definition(rule), v, at)?,
                "type" => need(is(v, rule.as_str().unwrap()), at, || format!("is no {rule}"))?,
                "const" => need(v == rule, at, || format!("is not {rule}"))?,
                "enum" => need(rule.as_array().unwrap().contains(v), at, || format!("{v} is not one of {rule}"))?,
                "minimum" => need(v.as_f64() >= rule.as_f64(), at, || format!("{v} is below {rule}"))?,
                "maximum" => need(v.as_f64() <= rule.as_f64(), at, || format!("{v} is above {rule}"))?,
                "required" => {
                    for key in rule.as_array().unwrap() {
                        need(v.get(key.as_str().unwrap()).is_some(), at, || format!("has no {key}"))?;
                    }
                }
                "properties" => self.properties(schema, rule, v, at)?,
                "items" => {
                    for (n, item) in v.as_array().into_iter().flatten().enumerate() {
                        self.against(rule, item, &format!("{at}[{n}]"))?;
                    }
                }
                "oneOf" => {
                    let fits = rule.as_array().unwrap().iter().filter(|s| self.against(s, v, at).is_ok()).count();
                    need(fits == 1, at, || format!("fits {fits} of {rule}"))?;
                }
                other => panic!("the schema uses {other}, which this check does not know"),
            }
        }
        Ok(())
    }

    fn properties(&self, schema: &Value, rules: &Value, v: &Value, at: &str) -> Result<(), String> {
        let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        for (key, value) in v.as_object().into_iter().flatten() {
            match rules.get(key) {
                Some(rule) => self.against(rule, value, &format!("{at}.{key}"))?,
                None => need(!closed, at, || format!("has an unknown {key}"))?,
            }
        }
        Ok(())
    }

    fn definition(&self, reference: &Value) -> &Value {
        let name = reference.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
        &self.0["$defs"][name]
    }
}

fn need(holds: bool, at: &str, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{} {}", if at.is_empty() { "the event" } else { at }, why())) }
}

fn is(v: &Value, kind: &str) -> bool {
    match kind {
        "object" => v.is_object(),
        "array" => v.is_array(),
        "string" => v.is_string(),
        "boolean" => v.is_boolean(),
        "integer" => v.is_i64() || v.is_u64(),
        "number" => v.is_number(),
        other => panic!("the schema uses the type {other}"),
    }
}

#[test]
fn the_check_refuses_what_the_schema_forbids() {
    let schema = Schema::load();
    let good = r#"{"timestamp":"2026-01-01T00:00:00Z","flow_id":1,"event_type":"sip","src_ip":"192.0.2.1","src_port":1,"dest_ip":"192.0.2.2","dest_port":2,
        "proto":"UDP","file":"a.pcap","frame":1,"sip":{"method":"INVITE","cseq_method":"INVITE","cseq":1,"call_id":"a","from_user":"","from_host":"",
        "to_user":"","to_host":"","identities":[{"field":"sip.to","user":"","host":""}],"malformed":[]}}"#;
    let wrong = [
        (r#""frame":1"#, r#""frame":0"#),
        (r#""proto":"UDP""#, r#""proto":"Udp""#),
        (r#""src_port":1"#, r#""src_port":"1""#),
        (r#""event_type":"sip""#, r#""event_type":"call""#),
        (r#""cseq":1,"#, ""),
        (r#""malformed":[]"#, r#""malformed":[1]"#),
        (r#""method":"INVITE","#, r#""method":"INVITE","status":200,"#),
        (r#""method":"INVITE","#, ""),
        (r#""field":"sip.to""#, r#""field":"sip.too""#),
        (r#""frame":1"#, r#""frame":1,"extra":true"#),
    ];

    assert_eq!(schema.check(&serde_json::from_str(good).unwrap()), Ok(()));
    for (from, to) in wrong {
        let bad = good.replacen(from, to, 1);
        assert!(schema.check(&serde_json::from_str(&bad).unwrap()).is_err(), "{to} passed");
    }
}
