//! An archive that is not what it should be; and one that answers for the table.

use std::process::{Command, Output};

use tapeline::archive::{self, Format, Query, Wanted};
use tapeline::config::DatabaseConfig;
use tapeline::database::reader;
use tapeline::lifecycle;

use super::place::{Place, everything_old, fill, restore_all, sums};

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_missing_or_damaged_is_named_and_nothing_is_dropped_s3() {
    let place = Place::new("damaged").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let before = sums(&mut database).await;
    let refused = |ended: &Output, what: &str| {
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && said.contains(what), "{what}: {said}");
    };
    assert!(
        place
            .tapeline(&["archive", "create", "--kind", "trade", "--date", "2021-04-17"], "")
            .status
            .success()
    );
    let object = place.objects("parquet").remove(0);
    let manifest = place.objects("json").remove(0);
    let (whole, said) =
        (std::fs::read(&object).expect("object"), std::fs::read(&manifest).expect("manifest"));
    for (path, body, what) in [
        (&object, whole[..whole.len() / 2].to_vec(), "the object was changed"),
        (
            &object,
            [&whole[..100], &[whole[100] ^ 1], &whole[101..]].concat(),
            "the object was changed",
        ),
        (&manifest, said[..said.len() / 2].to_vec(), "no manifest"),
        (
            &manifest,
            String::from_utf8_lossy(&said).replacen("\"rows\": 1", "\"rows\": 2", 1).into_bytes(),
            "changed",
        ),
    ] {
        std::fs::write(path, body).expect("damage");
        refused(&place.tapeline(&["lifecycle", "run"], ""), what);
        refused(&place.tapeline(&["restore", "--date", "2021-04-17"], ""), what);
        assert_eq!(sums(&mut database).await, before, "nothing is dropped: {what}");
        std::fs::write(&object, &whole).expect("repair");
        std::fs::write(&manifest, &said).expect("repair");
    }
    std::fs::remove_file(&object).expect("remove");
    refused(&place.tapeline(&["lifecycle", "run"], ""), "cannot read");
    std::fs::write(&object, &whole).expect("repair");
    let moved = place.folder.with_extension("moved");
    std::fs::rename(&place.folder, &moved).expect("rename");
    refused(&place.tapeline(&["lifecycle", "run"], ""), "is no folder");
    std::fs::rename(&moved, &place.folder).expect("rename");
    assert_eq!(sums(&mut database).await, before, "nothing is dropped");
    refused(&on_a_full_disk(&place), "No space left on device");
    assert_eq!(sums(&mut database).await, before, "nothing is dropped");
    place.finish().await;
}

/// `lifecycle run` with an archive on a file system of 16 KiB that ends with it.
fn on_a_full_disk(place: &Place) -> Output {
    place.empty();
    let run = place.command(&["lifecycle", "run"]);
    let script =
        format!("mount -t tmpfs -o size=16k tmpfs '{}' && exec \"$@\"", place.folder.display());
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
    command.arg(run.get_program()).args(run.get_args());
    run.get_envs().for_each(|(name, value)| {
        command.env(name, value.unwrap_or_default());
    });
    command.output().expect("unshare, of util-linux")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_over_days_that_only_the_archive_holds_answers_from_it_o6() {
    let place = Place::new("query").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let query = Query {
        kind: "trade".into(),
        table: "market_data_trades".into(),
        exchange: Some("BINANCE".into()),
        wanted: Wanted {
            symbol: Some("S1-USD".into()),
            from: archive::parse_moment("2021-04-17T12:00:00Z").ok(),
            to: archive::parse_moment("2021-04-18T12:00:00Z").ok(),
        },
        limit: None,
        unordered: None,
    };
    let store = place.store();
    let of_place = DatabaseConfig { url: place.url.clone(), ..DatabaseConfig::default() };
    let asking = async || reader(&of_place).await.expect("connects");
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<_> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let mut of_table = Vec::new();
    let answered =
        archive::query(&mut asking().await, Some(&store), &query, Format::Csv, &mut of_table)
            .await
            .expect("answers");
    assert!(answered.from_table > 100 && answered.archived_days.is_empty());
    let fast = Query { unordered: Some(place.url.clone()), ..query.clone() };
    let mut without_order = Vec::new();
    archive::query(&mut asking().await, Some(&store), &fast, Format::Csv, &mut without_order)
        .await
        .expect("answers");
    assert_eq!(sorted(&without_order), sorted(&of_table), "the same rows in another order");
    lifecycle::run(&mut database, &store, "test", &everything_old()).await.expect("runs");
    let mut of_archive = Vec::new();
    let archived =
        archive::query(&mut asking().await, Some(&store), &query, Format::Csv, &mut of_archive)
            .await
            .expect("answers");
    assert_eq!((archived.from_archive, archived.from_table), (answered.from_table, 0));
    assert_eq!(archived.archived_days.len(), 2);
    assert_eq!(sorted(&of_archive), sorted(&of_table), "the same rows, digit for digit");
    restore_all(&place).await;
    let mut of_both = Vec::new();
    archive::query(&mut asking().await, Some(&store), &query, Format::Csv, &mut of_both)
        .await
        .expect("answers");
    assert_eq!(sorted(&of_both), sorted(&of_table), "what was restored is not told twice");
    place.finish().await;
}
