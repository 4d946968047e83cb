//! The Redis that connectors share: what stands there makes many of them act as one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{FromRedisValue, RedisError, ScriptInvocation};
use tracing::{info, warn};

/// Longest wait for a connection and for an answer: everything has a local way on without them.
const PATIENCE: Duration = Duration::from_millis(500);

/// A connection to Redis that is made when it is first needed, and again after it was lost.
#[derive(Clone)]
pub struct Shared {
    manager: ConnectionManager,
    absent: Arc<AtomicBool>,
}

/// Without its address, which may hold a password.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("absent", &self.absent).finish_non_exhaustive()
    }
}

impl Shared {
    /// For the server of `client`, which need not answer yet.
    pub fn open(client: redis::Client) -> Result<Shared, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(client, config)?;
        Ok(Shared { manager, absent: Arc::default() })
    }

    /// Runs a script; none where Redis gives no answer, which is said once until it answers again.
    pub(super) async fn call<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Option<T> {
        let mut connection = self.manager.clone();
        match call.invoke_async(&mut connection).await {
            Ok(answer) => {
                if self.absent.swap(false, Ordering::Relaxed) {
                    info!("redis answers again, limits and leases are shared");
                }
                Some(answer)
            }
            Err(error) => {
                if !self.absent.swap(true, Ordering::Relaxed) {
                    let error = error.to_string();
                    warn!(
                        error,
                        "redis does not answer: every process keeps the venues' limits for itself"
                    );
                }
                None
            }
        }
    }
}
