//! Tokens and money.

use serde::{Deserialize, Serialize};

/// Tokens of one model call or a sum of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Model calls, retries included.
    pub model_calls: u64,
    /// Tokens in, cached ones included.
    pub input_tokens: u64,
    /// Of those, tokens read from the vendor's cache.
    pub cached_tokens: u64,
    /// Tokens out, reasoning included.
    pub output_tokens: u64,
    /// Of those, reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// The sum of two.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            model_calls: self.model_calls.saturating_add(other.model_calls),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            cached_tokens: self.cached_tokens.saturating_add(other.cached_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
        }
    }

    /// Tokens in and out.
    pub const fn total_tokens(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// Prices of a model in pico-dollars (1e-12 USD) per token: 1 USD per million tokens is 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Per token in that was not cached.
    pub input: u64,
    /// Per token read from the cache; `None`: as `input`.
    #[serde(default)]
    pub cached_input: Option<u64>,
    /// Per token out.
    pub output: u64,
}

impl Price {
    /// What `usage` costs, in whole micro-dollars, rounded up.
    pub fn of(&self, usage: &Usage) -> u64 {
        let fresh = usage.input_tokens.saturating_sub(usage.cached_tokens);
        let pico = [
            (fresh, self.input),
            (usage.cached_tokens, self.cached_input.unwrap_or(self.input)),
            (usage.output_tokens, self.output),
        ]
        .iter()
        .fold(0u128, |sum, (tokens, price)| sum + u128::from(*tokens) * u128::from(*price));
        u64::try_from(pico.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// What something cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "known", rename_all = "snake_case")]
pub enum Cost {
    /// Settled, in millionths of a US dollar.
    Priced {
        /// The amount.
        micro_usd: u64,
    },
    /// At least one call was made to a model that `prices.yaml` does not list.
    Unlisted {
        /// What the listed calls cost.
        micro_usd: u64,
    },
}

impl Default for Cost {
    fn default() -> Self {
        Self::Priced { micro_usd: 0 }
    }
}

impl Cost {
    /// What is known of the amount.
    pub const fn micro_usd(self) -> u64 {
        match self {
            Self::Priced { micro_usd } | Self::Unlisted { micro_usd } => micro_usd,
        }
    }

    /// The sum of two; unlisted when one is.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        let micro_usd = self.micro_usd().saturating_add(other.micro_usd());
        match (self, other) {
            (Self::Priced { .. }, Self::Priced { .. }) => Self::Priced { micro_usd },
            (Self::Unlisted { .. }, _) | (_, Self::Unlisted { .. }) => Self::Unlisted { micro_usd },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_counts_cached_tokens_apart_and_rounds_up() {
        let price = Price { input: 250_000, cached_input: Some(25_000), output: 2_000_000 };
        let usage =
            Usage { model_calls: 1, input_tokens: 1_000, cached_tokens: 400, output_tokens: 10, reasoning_tokens: 0 };
        // 600 × 0.25 µ$ + 400 × 0.025 µ$ + 10 × 2 µ$ = 180 µ$.
        assert_eq!(price.of(&usage), 180);
        assert_eq!(price.of(&Usage { input_tokens: 1, ..Usage::default() }), 1);
    }

    #[test]
    fn one_unlisted_call_marks_the_sum() {
        let sum = Cost::Priced { micro_usd: 5 }.plus(Cost::Unlisted { micro_usd: 0 });
        assert_eq!(sum, Cost::Unlisted { micro_usd: 5 });
    }
}
