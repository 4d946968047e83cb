//! Several days at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use futures_util::future::try_join_all;
use sqlx::PgConnection;

use crate::migrate::connect;

/// Connections, each with a day at a time: while one's rows are sorted or compared, another's are on their way.
const LANES: usize = 2;

/// Does `work` for each item, on several connections; what came of it is in the order of the items. The first error
/// ends all: the other connections are dropped, and the database rolls back what they were at.
pub(crate) async fn on_lanes<T, R>(
    url: &str,
    items: &[T],
    work: impl AsyncFn(&mut PgConnection, &T) -> Result<R>,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let lane = async || {
        let mut database = connect(url).await?;
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return anyhow::Ok(done) };
            done.push((index, work(&mut database, item).await?));
        }
    };
    let lanes = try_join_all((0..LANES.min(items.len())).map(|_| lane())).await?;
    let mut done: Vec<(usize, R)> = lanes.into_iter().flatten().collect();
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
