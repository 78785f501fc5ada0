//! A row to be written, column by column: each value stands beside the column's name.

use jiff::Timestamp;
use pipeline::uid::Uid;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, Arguments};

use super::{StateError, Transaction};

/// What a column can hold, on either database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
}

/// A row of `table`.
pub(super) struct Record {
    table: &'static str,
    columns: Vec<(&'static str, Value)>,
}

/// What is done where a row with the same key is there already.
pub(super) enum OnConflict {
    /// The columns named are the key, all others are set.
    Replace(&'static [&'static str]),
    /// The statement's end, in SQL.
    Otherwise(&'static str),
}

impl Record {
    pub(super) fn of(table: &'static str) -> Self {
        Self {
            table,
            columns: Vec::new(),
        }
    }

    pub(super) fn set(mut self, column: &'static str, value: impl Into<Value>) -> Self {
        self.columns.push((column, value.into()));
        self
    }

    /// Inserts the row. How many rows were written.
    pub(super) async fn write(
        self,
        transaction: &mut Transaction,
        conflict: OnConflict,
    ) -> Result<u64, StateError> {
        let sql = self.sql(&conflict);
        let mut arguments = AnyArguments::default();
        for (_, value) in self.columns {
            let added = match value {
                Value::Integer(value) => arguments.add(value),
                Value::Text(value) => arguments.add(value),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        let query: Query<'_, Any, _> = sqlx::query_with(AssertSqlSafe(sql), arguments);
        transaction.run(query).await
    }

    /// Made of names that stand in this crate alone, never of a value.
    fn sql(&self, conflict: &OnConflict) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let places: Vec<String> = (1..=names.len())
            .map(|number| format!("${number}"))
            .collect();
        let end = match conflict {
            OnConflict::Otherwise(end) => (*end).to_owned(),
            OnConflict::Replace(key) => {
                let others = names.iter().filter(|name| !key.contains(name));
                let sets: Vec<String> = others
                    .map(|name| format!("{name} = excluded.{name}"))
                    .collect();
                format!(
                    "ON CONFLICT ({}) DO UPDATE SET {}",
                    key.join(", "),
                    sets.join(", ")
                )
            }
        };
        format!(
            "INSERT INTO {} ({}) VALUES ({}) {end}",
            self.table,
            names.join(", "),
            places.join(", ")
        )
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        i64::from(value).into()
    }
}

/// Milliseconds since 1970 UTC.
impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        value.as_millisecond().into()
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(value: Option<Timestamp>) -> Self {
        value.map(Timestamp::as_millisecond).into()
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        value.to_owned().into()
    }
}

/// PostgreSQL keeps no NUL in a text, and a header may hold one.
impl From<String> for Value {
    fn from(value: String) -> Self {
        let text = if value.contains('\0') {
            value.replace('\0', "\u{FFFD}")
        } else {
            value
        };
        Self::Text(Some(text))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        value.map_or(Self::Text(None), Self::from)
    }
}

impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        value.map_or(Self::Text(None), Self::from)
    }
}

impl From<&Uid> for Value {
    fn from(value: &Uid) -> Self {
        value.as_str().into()
    }
}

impl From<Option<&Uid>> for Value {
    fn from(value: Option<&Uid>) -> Self {
        value.map(Uid::as_str).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_by_its_columns_names() {
        let record = Record::of("studies")
            .set("uid", "1.2")
            .set("state", "queued")
            .set("generation", 3);
        assert_eq!(
            record.sql(&OnConflict::Replace(&["uid"])),
            "INSERT INTO studies (uid, state, generation) VALUES ($1, $2, $3) ON CONFLICT (uid) \
             DO UPDATE SET state = excluded.state, generation = excluded.generation"
        );
    }

    #[test]
    fn a_text_has_no_nul() {
        assert_eq!(
            Value::from("a\0b"),
            Value::Text(Some("a\u{FFFD}b".to_owned()))
        );
    }
}
