//! Which schemas may follow which.

use super::*;

fn parse(text: &str) -> Schema {
    Schema::parse_str(text).expect("a valid schema")
}

fn record(fields: &str) -> Schema {
    parse(&format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#))
}

fn decimal(precision: u32, scale: u32) -> String {
    format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{precision},"scale":{scale}}}"#)
}

fn allowed(new: &Schema, old: &Schema, level: Level) -> bool {
    objections(new, old, level).is_empty()
}

#[test]
fn levels_have_the_names_of_the_api() {
    for (level, name) in LEVELS {
        assert_eq!(Level::from_name(&name.to_lowercase()), Some(level));
        assert_eq!(level.name(), name);
    }
    assert_eq!(Level::from_name("SIDEWAYS"), None);
}

#[test]
fn fields_come_and_go_by_level() {
    let one = record(r#"{"name":"a","type":"int"}"#);
    let two = record(r#"{"name":"a","type":"int"},{"name":"b","type":"int"}"#);
    let with_default = record(r#"{"name":"a","type":"int"},{"name":"b","type":"int","default":0}"#);
    assert!(!allowed(&two, &one, Level::Backward));
    assert!(allowed(&two, &one, Level::Forward));
    assert!(allowed(&one, &two, Level::Backward));
    assert!(!allowed(&one, &two, Level::Forward));
    assert!(!allowed(&two, &one, Level::Full));
    assert!(allowed(&with_default, &one, Level::Full));
    assert!(allowed(&two, &parse(r#""int""#), Level::None));
}

#[test]
fn a_reader_must_know_every_branch_and_symbol() {
    let narrow = parse(r#"["null","int"]"#);
    let wide = parse(r#"["null","int","string"]"#);
    assert!(allowed(&wide, &narrow, Level::Backward));
    assert!(!allowed(&narrow, &wide, Level::Backward));
    let ab = parse(r#"{"type":"enum","name":"E","symbols":["A","B"]}"#);
    let abc = parse(r#"{"type":"enum","name":"E","symbols":["A","B","C"]}"#);
    let ab_default = parse(r#"{"type":"enum","name":"E","symbols":["A","B"],"default":"A"}"#);
    assert!(!allowed(&ab, &abc, Level::Backward));
    assert!(allowed(&ab_default, &abc, Level::Backward));
}

#[test]
fn money_keeps_its_scale_and_precision() {
    let field = |kind: &str| record(&format!(r#"{{"name":"price","type":{kind}}}"#));
    let old = field(&decimal(38, 18));
    assert!(allowed(&field(&decimal(38, 18)), &old, Level::Full));
    for other in [decimal(38, 8), decimal(30, 18), r#""bytes""#.into(), r#""string""#.into()] {
        assert!(!allowed(&field(&other), &old, Level::Backward), "{other}");
        assert!(!allowed(&old, &field(&other), Level::Backward), "{other}");
    }
    let optional = field(&format!(r#"["null",{}]"#, decimal(38, 18)));
    assert!(allowed(&optional, &old, Level::Backward));
    // The string branch would take the decimal's bytes by Avro's rules.
    let smuggled = field(&format!(r#"["null",{},"string"]"#, decimal(38, 8)));
    assert!(!allowed(&smuggled, &optional, Level::Backward));
}

#[test]
fn definitions_may_move_and_are_compared_behind_references() {
    let level = |kind: &str| {
        format!(r#"{{"type":"record","name":"Level","fields":[{{"name":"price","type":{kind}}}]}}"#)
    };
    let long = level(r#""long""#);
    let a = record(&format!(r#"{{"name":"a","type":{long}}},{{"name":"b","type":"Level"}}"#));
    let b = record(&format!(r#"{{"name":"b","type":{long}}},{{"name":"a","type":"Level"}}"#));
    assert!(allowed(&a, &b, Level::Full));
    let text = level(r#""string""#);
    let hidden = |kind: &str, outer: &str| {
        record(&format!(
            r#"{{"name":"{outer}","type":["null",{kind}],"default":null}},{{"name":"b","type":"Level"}}"#
        ))
    };
    assert!(!allowed(&hidden(&text, "y"), &hidden(&long, "x"), Level::Backward));
}

#[test]
fn recursive_types_come_to_an_end() {
    let list = |kind: &str| {
        parse(&format!(
            r#"{{"type":"record","name":"L","fields":[{{"name":"v","type":"{kind}"}},{{"name":"next","type":["null","L"]}}]}}"#
        ))
    };
    assert!(allowed(&list("long"), &list("int"), Level::Backward));
    assert!(!allowed(&list("int"), &list("long"), Level::Backward));
}

#[test]
fn our_own_schemas_may_follow_themselves() {
    for spec in &tapeline_schemas::ALL_KINDS {
        let schema = parse(spec.schema);
        assert_eq!(
            objections(&schema, &schema, Level::Full),
            Vec::<String>::new(),
            "{}",
            spec.name
        );
    }
}
