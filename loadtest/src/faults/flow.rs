//! A feed that sends by itself.

use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::feed::Feed;

/// Time between two looks at how many events are due.
const TICK: Duration = Duration::from_millis(20);

impl Feed {
    /// Keeps sending in the background, `rate` events a second.
    pub(crate) fn flow(mut self, rate: u64) -> Flow {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let each = (rate as f64 * TICK.as_secs_f64()).ceil() as u64;
            while !token.is_cancelled() {
                ticks.tick().await;
                if let Err(error) = self.send(each).await {
                    // Whoever waits for what it sends learns of it only at the end.
                    eprintln!("the feed of the case has ended: {error:#}");
                    return Err(error);
                }
            }
            Ok(self)
        });
        Flow { stop, task }
    }
}

/// A feed that runs by itself; it ends with the value.
pub(crate) struct Flow {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<Feed>>,
}

impl Flow {
    /// Ends it; everything it sent is delivered.
    pub(crate) async fn stop(mut self) -> Result<Feed> {
        self.stop.cancel();
        let mut feed = (&mut self.task).await??;
        feed.delivered().await?;
        Ok(feed)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
