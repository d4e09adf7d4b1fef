//! What simulations share: counts of what happened, and many schedules with a report.

mod past;
pub(crate) mod runs;

/// Makes `Seen`, what every run must have seen, and `Counts`, how often.
macro_rules! seen {
    ($($name:ident: $what:literal,)*) => {
        /// Something that every run must have seen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Seen { $(#[doc = $what] $name,)* }

        impl Seen {
            /// Each of them, with what it is.
            pub(crate) const ALL: &[(Self, &'static str)] = &[$((Self::$name, $what),)*];
        }

        /// How often.
        #[derive(Clone, Debug)]
        pub(crate) struct Counts(Vec<u64>);

        impl Default for Counts {
            fn default() -> Self {
                Self(vec![0; Seen::ALL.len()])
            }
        }

        impl Counts {
            pub(crate) fn saw(&mut self, seen: Seen) {
                self.0[seen as usize] += 1;
            }
        }

        impl $crate::schedules::runs::Tally for Counts {
            fn add(&mut self, other: &Self) {
                for (mine, others) in self.0.iter_mut().zip(&other.0) {
                    *mine += others;
                }
            }

            fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
                Seen::ALL.iter().zip(&self.0).map(|((_, what), count)| (*what, *count))
            }
        }
    };
}

pub(crate) use seen;
