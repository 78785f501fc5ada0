//! Multipart bodies, streamed (RFC 2046 section 5.1): form data of uploads, related parts of STOW-RS.
//!
//! Memory stays bounded whatever is sent: the preamble, the headers of a part and the boundary have
//! limits, and the bytes of a part pass through. The crate `multer`, which axum uses, buffers
//! preamble and headers without a limit of their own, so a body of many gigabytes would fill the
//! memory.

use std::collections::BTreeMap;

use axum::body::Bytes;

use super::body::{BodyError, BodyReader};
use super::media::MediaType;

/// Most bytes before the first boundary.
const PREAMBLE_BYTES_MAX: usize = 64 << 10;
/// Most bytes of one part's headers.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Longest boundary. RFC 2046 section 5.1.1 allows 70, but Orthanc sends 73.
const BOUNDARY_LENGTH_MAX: usize = 200;

/// Why a multipart body cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum MultipartError {
    /// The body itself.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The content type has no usable boundary.
    #[error("the content type has no boundary of 1 to 200 characters")]
    Boundary,
    /// It ends before the closing boundary.
    #[error("the body ends before its closing boundary")]
    Truncated,
    /// The parts are not separated as they should be.
    #[error("the body is not multipart: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
}

/// The headers of one part, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartHeaders(BTreeMap<String, String>);

impl PartHeaders {
    /// The part's media type, if it names one.
    pub fn content_type(&self) -> Option<MediaType> {
        self.0
            .get("content-type")
            .map(|text| MediaType::parse(text))
    }

    /// The name of the file, as the sender calls it. Never a path to write to.
    pub fn file_name(&self) -> Option<String> {
        let disposition = MediaType::parse(self.0.get("content-disposition")?);
        disposition.parameter("filename").map(str::to_owned)
    }
}

/// A multipart body that is being read, part after part.
#[derive(Debug)]
pub struct Parts {
    body: BodyReader,
    /// What was received and not handed out. Starts with a line break so that a body which begins
    /// with its boundary looks like all others.
    buffer: Vec<u8>,
    /// How much of `buffer` was handed out.
    taken: usize,
    delimiter: Vec<u8>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first boundary.
    Preamble,
    /// Inside the bytes of a part.
    Part,
    /// Behind a boundary, before its line's end.
    Boundary,
    /// Behind the last boundary.
    Ended,
}

impl Parts {
    /// Reads `body` by the boundary in `content_type`.
    ///
    /// # Errors
    ///
    /// [`MultipartError::Boundary`] if there is none, or it is too long.
    pub fn new(body: BodyReader, content_type: &MediaType) -> Result<Self, MultipartError> {
        let boundary = content_type.parameter("boundary").unwrap_or_default();
        if !(1..=BOUNDARY_LENGTH_MAX).contains(&boundary.len()) {
            return Err(MultipartError::Boundary);
        }
        Ok(Self {
            body,
            buffer: b"\r\n".to_vec(),
            taken: 0,
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            stage: Stage::Preamble,
        })
    }

    /// The headers of the next part, or `None` after the last; the rest of the part before is skipped.
    ///
    /// # Errors
    ///
    /// [`MultipartError`]; the body is then of no more use.
    pub async fn next_part(&mut self) -> Result<Option<PartHeaders>, MultipartError> {
        match self.stage {
            Stage::Preamble => self.skip_preamble().await?,
            Stage::Part => while self.piece().await?.is_some() {},
            Stage::Boundary => {}
            Stage::Ended => return Ok(None),
        }
        if self.is_last_boundary().await? {
            self.stage = Stage::Ended;
            return Ok(None);
        }
        let headers = self.headers().await?;
        self.stage = Stage::Part;
        Ok(Some(headers))
    }

    /// The next piece of the part's bytes, or `None` at its end.
    ///
    /// # Errors
    ///
    /// [`MultipartError`]; the body is then of no more use.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, MultipartError> {
        if self.stage != Stage::Part {
            return Ok(None);
        }
        self.before_boundary().await
    }

    async fn skip_preamble(&mut self) -> Result<(), MultipartError> {
        let mut skipped = 0;
        while let Some(piece) = self.before_boundary().await? {
            skipped += piece.len();
            if skipped > PREAMBLE_BYTES_MAX {
                let what = "no boundary in its first 64 KiB";
                return Err(MultipartError::Malformed { what });
            }
        }
        Ok(())
    }

    /// A piece of what stands before the next boundary, or `None` once that is passed.
    async fn before_boundary(&mut self) -> Result<Option<Bytes>, MultipartError> {
        loop {
            match memchr::memmem::find(self.rest(), &self.delimiter) {
                Some(0) => {
                    self.taken += self.delimiter.len();
                    self.stage = Stage::Boundary;
                    return Ok(None);
                }
                Some(at) => return Ok(Some(self.take(at))),
                None => {}
            }
            // A delimiter may have begun in the last bytes.
            let safe = self.rest().len().saturating_sub(self.delimiter.len() - 1);
            if safe > 0 {
                return Ok(Some(self.take(safe)));
            }
            self.fill().await?;
        }
    }

    /// Reads the line's end behind a boundary: `--` marks the last (RFC 2046 section 5.1.1).
    async fn is_last_boundary(&mut self) -> Result<bool, MultipartError> {
        while self.rest().len() < 2 {
            self.fill().await?;
        }
        if self.rest().starts_with(b"--") {
            return Ok(true);
        }
        let what = "a boundary is followed by other text";
        let padding = self.until_line_end(BOUNDARY_LENGTH_MAX, what).await?;
        let blank = padding.iter().all(|byte| matches!(byte, b' ' | b'\t'));
        blank
            .then_some(false)
            .ok_or(MultipartError::Malformed { what })
    }

    async fn headers(&mut self) -> Result<PartHeaders, MultipartError> {
        let mut headers = BTreeMap::new();
        let mut bytes_left = HEADER_BYTES_MAX;
        let what = "the headers of a part are longer than 16 KiB";
        loop {
            let line = self.until_line_end(bytes_left, what).await?;
            if line.is_empty() {
                return Ok(PartHeaders(headers));
            }
            bytes_left = bytes_left.saturating_sub(line.len() + 2);
            let line = String::from_utf8_lossy(&line);
            if let Some((name, value)) = line.split_once(':') {
                let name = name.trim().to_ascii_lowercase();
                headers.insert(name, value.trim().to_owned());
            }
        }
    }

    /// What stands before the next line break, which is taken as well.
    async fn until_line_end(
        &mut self,
        bytes_max: usize,
        what: &'static str,
    ) -> Result<Vec<u8>, MultipartError> {
        loop {
            let found = memchr::memmem::find(self.rest(), b"\r\n");
            if found.unwrap_or(self.rest().len()) > bytes_max {
                return Err(MultipartError::Malformed { what });
            }
            if let Some(at) = found {
                let line = self.rest()[..at].to_vec();
                self.taken += at + 2;
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    fn take(&mut self, length: usize) -> Bytes {
        let piece = Bytes::copy_from_slice(&self.rest()[..length]);
        self.taken += length;
        piece
    }

    async fn fill(&mut self) -> Result<(), MultipartError> {
        let piece = self.body.next().await?.ok_or(MultipartError::Truncated)?;
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(&piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use proptest::prelude::*;

    use super::*;

    fn parts(pieces: Vec<Vec<u8>>) -> Parts {
        let pieces = pieces
            .into_iter()
            .map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        let body = Body::from_stream(tokio_stream::iter(pieces));
        let reader = BodyReader::new(body, 1 << 30, Duration::from_secs(5));
        let media = MediaType::parse("multipart/related; boundary=\"x y\"");
        Parts::new(reader, &media).unwrap()
    }

    fn in_pieces(body: &[u8], length: usize) -> Vec<Vec<u8>> {
        body.chunks(length).map(<[u8]>::to_vec).collect()
    }

    async fn read(mut parts: Parts) -> Result<Vec<(PartHeaders, Vec<u8>)>, MultipartError> {
        let mut all = Vec::new();
        while let Some(headers) = parts.next_part().await? {
            let mut bytes = Vec::new();
            while let Some(piece) = parts.piece().await? {
                bytes.extend_from_slice(&piece);
            }
            all.push((headers, bytes));
        }
        Ok(all)
    }

    fn encode(contents: &[Vec<u8>]) -> Vec<u8> {
        let mut body = Vec::new();
        for content in contents {
            body.extend_from_slice(b"\r\n--x y \r\nContent-Type: application/dicom\r\n\r\n");
            body.extend_from_slice(content);
        }
        body.extend_from_slice(b"\r\n--x y--");
        body
    }

    #[tokio::test]
    async fn a_part_is_read_alike_however_the_network_cuts_it() {
        let body = b"--x y\r\nContent-Disposition: form-data; name=file; filename=\"\xd0\x90.dcm\"\r\n\r\na\r\n--x\r\n--x y\r\n\r\n\r\n--x y--\r\nepilogue";
        for length in 1..body.len() {
            let read = read(parts(in_pieces(body, length))).await.unwrap();
            assert_eq!(read[0].0.file_name().as_deref(), Some("А.dcm"), "{length}");
            assert_eq!(read[0].1, b"a\r\n--x", "{length}");
            assert_eq!(read[1], (PartHeaders::default(), Vec::new()), "{length}");
            assert_eq!(read.len(), 2);
        }
    }

    #[tokio::test]
    async fn a_body_that_ends_anywhere_before_its_end_is_truncated() {
        let body = encode(&[b"abc".to_vec(), b"defg".to_vec()]);
        for length in 0..body.len() {
            let read = read(parts(vec![body[..length].to_vec()])).await;
            assert!(
                matches!(read, Err(MultipartError::Truncated)),
                "{length}: {read:?}"
            );
        }
    }

    #[tokio::test]
    async fn headers_and_preamble_without_an_end_do_not_fill_the_memory() {
        for start in ["--x y\r\n", "--x y", ""] {
            let mut pieces = vec![start.as_bytes().to_vec()];
            pieces.resize(100, vec![b'a'; 4096]);
            let read = read(parts(pieces)).await;
            assert!(
                matches!(read, Err(MultipartError::Malformed { .. })),
                "{start:?}: {read:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_boundary_as_long_as_orthancs_is_taken() {
        let boundary = "3b427160-674c-4c1d-a411-4d99352c37cf-3b427160-674c-4c1d-a411-4d99352c37cf";
        let body = Body::from(format!("--{boundary}\r\n\r\nx\r\n--{boundary}--\r\n"));
        let reader = BodyReader::new(body, 1 << 20, Duration::from_secs(5));
        let media = MediaType::parse(&format!("multipart/related; boundary={boundary}"));
        let read = read(Parts::new(reader, &media).unwrap()).await.unwrap();
        assert_eq!(read[0].1, b"x");
    }

    #[test]
    fn a_boundary_must_be_given_and_short() {
        for media in ["multipart/related", "multipart/related; boundary=\"\""] {
            let reader = BodyReader::new(Body::empty(), 1, Duration::from_secs(1));
            let parts = Parts::new(reader, &MediaType::parse(media));
            assert!(matches!(parts, Err(MultipartError::Boundary)), "{media}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_in_comes_out(
            contents in prop::collection::vec(prop::collection::vec(prop::sample::select(b"\r\n-x ya".to_vec()), 0..40), 0..5),
            length in 1_usize..50,
        ) {
            let body = encode(&contents);
            prop_assume!(memchr::memmem::find_iter(&body, b"\r\n--x y").count() == contents.len() + 1);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let read = runtime.block_on(read(parts(in_pieces(&body, length)))).unwrap();
            let read: Vec<Vec<u8>> = read.into_iter().map(|(_, bytes)| bytes).collect();
            prop_assert_eq!(read, contents);
        }
    }
}
