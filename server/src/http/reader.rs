//! On whose behalf a request reads.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use store::state::Scope;

/// What the one who asks may see. There is no login yet: everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader(pub(super) Scope);

impl<S: Sync> FromRequestParts<S> for Reader {
    type Rejection = Infallible;

    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(Scope::All))
    }
}
