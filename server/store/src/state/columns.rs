//! Columns of a row that was read.

use jiff::Timestamp;
use pipeline::reason::Reason;
use pipeline::uid::Uid;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::StateError;

pub(super) fn text(row: &AnyRow, column: &'static str) -> Result<String, StateError> {
    value(row, column)
}

pub(super) fn text_if_any(
    row: &AnyRow,
    column: &'static str,
) -> Result<Option<String>, StateError> {
    value(row, column)
}

pub(super) fn integer(row: &AnyRow, column: &'static str) -> Result<i64, StateError> {
    value(row, column)
}

pub(super) fn integer_if_any(
    row: &AnyRow,
    column: &'static str,
) -> Result<Option<i64>, StateError> {
    value(row, column)
}

/// SQLite lets other programs put a value of any type into a column.
fn value<'r, T>(row: &'r AnyRow, column: &'static str) -> Result<T, StateError>
where
    T: sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any>,
{
    row.try_get(column).map_err(|error| match error {
        sqlx::Error::ColumnDecode { .. } => bad_row(column, "a value of another type"),
        error => error.into(),
    })
}

pub(super) fn uid(row: &AnyRow, column: &'static str) -> Result<Uid, StateError> {
    let word = text(row, column)?;
    Uid::new(&word).map_err(|_| bad_row(column, &word))
}

pub(super) fn uid_if_any(row: &AnyRow, column: &'static str) -> Result<Option<Uid>, StateError> {
    let word = text_if_any(row, column)?;
    word.map(|word| Uid::new(&word).map_err(|_| bad_row(column, &word)))
        .transpose()
}

pub(super) fn time(row: &AnyRow, column: &'static str) -> Result<Timestamp, StateError> {
    timestamp(column, integer(row, column)?)
}

pub(super) fn time_if_any(
    row: &AnyRow,
    column: &'static str,
) -> Result<Option<Timestamp>, StateError> {
    integer_if_any(row, column)?
        .map(|value| timestamp(column, value))
        .transpose()
}

pub(super) fn reason(row: &AnyRow, column: &'static str) -> Result<Reason, StateError> {
    json(row, column)
}

pub(super) fn json<T: DeserializeOwned>(
    row: &AnyRow,
    column: &'static str,
) -> Result<T, StateError> {
    let json = text(row, column)?;
    serde_json::from_str(&json).map_err(|_| bad_row(column, &json))
}

pub(super) fn bad_row(column: &'static str, value: &str) -> StateError {
    StateError::BadRow {
        column,
        value: value.chars().take(80).collect(),
    }
}

fn timestamp(column: &'static str, millisecond: i64) -> Result<Timestamp, StateError> {
    Timestamp::from_millisecond(millisecond).map_err(|_| bad_row(column, &millisecond.to_string()))
}
