//! Feeds that are about to start anew.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::rest::Rest;

/// Feeds that are about to start anew, as the venue's budget lets them: it keeps a book that is wrong again and again
/// from hammering the venue. None waits twice, so that a venue that talks nonsense fills no memory (invariant 8), and
/// what was meant for a session that is over is not said to the next one: that has its subscriptions, and would lose
/// what comes between taking one back and making it again.
#[derive(Debug, Clone, Default)]
pub(super) struct Resubscribing(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    asked: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Numbers of those whose messages are not handed over yet, by link and last message.
    feeds: HashMap<(usize, String), u64>,
    /// Those whose turn has not come.
    queue: VecDeque<Request>,
    next: u64,
}

#[derive(Debug)]
struct Request {
    number: u64,
    feed: (usize, String),
    texts: Vec<String>,
    /// Of a connection that somebody may not need any more.
    outbox: mpsc::WeakSender<String>,
}

impl Resubscribing {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `texts` sent on `link`, whose messages go through `outbox`, unless that is about to happen.
    pub(super) fn ask(&self, link: usize, outbox: &mpsc::Sender<String>, texts: Vec<String>) {
        let Some(last) = texts.last().cloned() else { return };
        let mut waiting = self.lock();
        let (feed, number) = ((link, last), waiting.next);
        if waiting.feeds.contains_key(&feed) {
            return;
        }
        waiting.next += 1;
        waiting.feeds.insert(feed.clone(), number);
        waiting.queue.push_back(Request { number, feed, texts, outbox: outbox.downgrade() });
        drop(waiting);
        self.0.asked.notify_one();
    }

    /// The session of `link` is over.
    pub(super) fn lost(&self, link: usize) {
        let mut waiting = self.lock();
        waiting.feeds.retain(|(of, _), _| *of != link);
        waiting.queue.retain(|request| request.feed.0 != link);
    }

    /// Hands messages over until it is dropped.
    pub(super) async fn run(self, rest: Arc<Rest>) {
        let mut sending = JoinSet::new();
        loop {
            let request = self.next().await;
            rest.allowed().await;
            // On its own: a connection that takes nothing holds up no other.
            sending.spawn(self.clone().send(request));
            while sending.try_join_next().is_some() {}
        }
    }

    async fn next(&self) -> Request {
        loop {
            if let Some(request) = self.lock().queue.pop_front() {
                return request;
            }
            self.0.asked.notified().await;
        }
    }

    async fn send(self, Request { number, feed, texts, outbox }: Request) {
        let lasts = || self.lock().feeds.get(&feed) == Some(&number);
        if let Some(outbox) = outbox.upgrade() {
            for text in texts {
                // The venue's pace may hold it up, and the session end meanwhile.
                if !lasts() || outbox.send(text).await.is_err() {
                    break;
                }
            }
        }
        let mut waiting = self.lock();
        if waiting.feeds.get(&feed) == Some(&number) {
            waiting.feeds.remove(&feed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(of: &str) -> Vec<String> {
        ["unsubscribe", "subscribe"].map(|event| format!("{event} {of}")).to_vec()
    }

    #[tokio::test]
    async fn a_feed_waits_once_and_nothing_is_said_to_the_session_after_it() {
        let feeds = Resubscribing::default();
        let (outbox, mut sent) = mpsc::channel(8);
        for _ in 0..2 {
            feeds.ask(1, &outbox, texts("A"));
            feeds.ask(1, &outbox, texts("B"));
            feeds.ask(2, &outbox, texts("A"));
        }
        assert_eq!(feeds.lock().queue.len(), 3);
        let of_the_first = feeds.next().await;
        feeds.lost(1);
        feeds.ask(1, &outbox, texts("A"));
        // Its turn came before the session ended; it takes nothing from the one that was asked for since.
        feeds.clone().send(of_the_first).await;
        assert!(sent.try_recv().is_err());
        for (link, number) in [(2, 2), (1, 3)] {
            let request = feeds.next().await;
            assert_eq!((request.feed.0, request.number), (link, number));
            feeds.clone().send(request).await;
            assert_eq!(
                [sent.try_recv().ok(), sent.try_recv().ok()]
                    .map(Option::unwrap_or_default)
                    .to_vec(),
                texts("A")
            );
        }
        assert!(feeds.lock().feeds.is_empty());
    }
}
