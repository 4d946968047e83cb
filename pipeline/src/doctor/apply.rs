//! Changing the settings that are safe to change.

use anyhow::{Context as _, Result};
use sqlx::Executor;

use super::Patient;
use super::report::Target;

/// Carries out the advice that is safe, and says of each line what became of it.
pub(super) async fn apply(patient: &mut Patient<'_>) -> Result<()> {
    // the very connection that was examined
    let Patient { config, database, report, .. } = patient;
    let client = config.redis.client()?;
    let mut reload = false;
    let all = report.findings.iter_mut().flat_map(|finding| finding.advice.iter_mut());
    for advice in all.filter(|advice| advice.safe) {
        let outcome = match advice.target {
            Target::Postgresql => {
                let done = database.execute(advice.line.as_str()).await;
                reload |= done.is_ok();
                done.map(drop).map_err(anyhow::Error::from)
            }
            Target::Redis => set_redis(&client, &advice.line).await,
            Target::Command => continue,
        };
        advice.applied = Some(match outcome {
            Ok(()) => "applied".to_owned(),
            Err(error) => format!("not applied: {error:#}"),
        });
    }
    if reload {
        database.execute("select pg_reload_conf()").await.context("reloading settings")?;
    }
    Ok(())
}

async fn set_redis(client: &redis::Client, line: &str) -> Result<()> {
    let (name, value) = line.split_once(' ').context("a setting and its value")?;
    let mut cache = client.get_multiplexed_async_connection().await?;
    redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query_async::<()>(&mut cache).await?;
    Ok(())
}
