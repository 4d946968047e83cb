//! The matrix of issue 4, a case a row.

mod kills;

use super::Case;

/// Every case, in the order.
pub(crate) fn all() -> Vec<Case> {
    vec![
        Case {
            name: "failpoints",
            fault: "store, validate, cache and candles killed at each failpoint",
            own: false,
            run: |run| Box::pin(kills::failpoints(run)),
        },
        Case {
            name: "sigkill",
            fault: "members of real groups killed with SIGKILL at any moment",
            own: false,
            run: |run| Box::pin(kills::groups(run)),
        },
    ]
}
