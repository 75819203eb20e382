//! Hostile requests: none takes a process down, holds a thread beyond its deadline, or takes more memory than the budgets.
//!
//! | variable | meaning |
//! |---|---|
//! | `WEIR_TEST_SEED` | seed of the cases; 1 |
//! | `WEIR_HOSTILE_FROM` | number of the first case, to go on after an interruption or to repeat a failure; 0 |
//! | `WEIR_HOSTILE_CASES` | requests to the real binary; 2,000 |
//! | `WEIR_HOSTILE_DECODER_CASES` | requests to a producer within the test; 20,000 |
//! | `WEIR_HOSTILE_BUDGET` | memory above idle that requests may take, MiB; 512 |
//! | `WEIR_HOSTILE_LATENCY` | `1`: check the latency of other clients, too, on a quiet machine |

mod binary;
mod bystander;
mod cases;
mod in_process;
mod process;
mod send;

#[global_allocator]
static ALLOCATOR: weir_tests::allocations::Counting = weir_tests::allocations::Counting;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

fn seed() -> u64 {
    setting("WEIR_TEST_SEED", 1)
}
