//! Tasks that have finished.

use tokio::task::JoinSet;

/// Forgets those that have. One that panicked leaves a connection, a request or the lease without anybody: the driver
/// panics with it.
pub(super) fn reap(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.try_join_next() {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "no longer there")]
    async fn a_task_that_panics_does_not_end_in_silence() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        tasks.spawn(async { panic!("no longer there") });
        while !tasks.is_empty() {
            reap(&mut tasks);
            tokio::task::yield_now().await;
        }
    }
}
