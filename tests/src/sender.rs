//! A storage client that knows, object by object, what was acknowledged, even when the service dies.

use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use dicom_core::{DataElement, Tag};
use dicom_core::{VR, dicom_value};
use dicom_object::InMemDicomObject;
use dicom_ul::association::client::{ClientAssociation, ClientAssociationOptions};
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu};

/// Status of an accepted C-STORE.
pub const SUCCESS: u16 = 0x0000;

/// Leaves room for the PDV header in the 16 KiB that every peer takes.
const FRAGMENT_BYTES: usize = 16_000;

/// An object as it is sent: the bare data set, without preamble and file meta.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// SOP Class UID.
    pub sop_class_uid: String,
    /// SOP Instance UID.
    pub sop_instance_uid: String,
    /// Transfer syntax of `data_set`.
    pub transfer_syntax_uid: String,
    /// The data set's bytes.
    pub data_set: Vec<u8>,
}

impl Outgoing {
    /// Reads a Part 10 file.
    ///
    /// # Errors
    ///
    /// When it is not one.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)?;
        let meta =
            dicom_object::FileMetaTable::from_reader(bytes.get(128..).context("no preamble")?)?;
        let offset = 128 + 4 + 12 + usize::try_from(meta.information_group_length)?;
        let bare = |text: &str| text.trim_end_matches(['\0', ' ']).to_owned();
        Ok(Self {
            sop_class_uid: bare(&meta.media_storage_sop_class_uid),
            sop_instance_uid: bare(&meta.media_storage_sop_instance_uid),
            transfer_syntax_uid: bare(&meta.transfer_syntax),
            data_set: bytes.get(offset..).context("no data set")?.to_vec(),
        })
    }

    /// Reads every file of a folder, in order of name.
    ///
    /// # Errors
    ///
    /// When one is not a Part 10 file.
    pub fn read_folder(folder: &Path) -> Result<Vec<Self>> {
        let mut paths: Vec<_> = std::fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }
}

/// One association with the service.
#[derive(Debug)]
pub struct Sender {
    association: ClientAssociation<TcpStream>,
    message_id: u16,
}

impl Sender {
    /// Opens an association for what `objects` need.
    ///
    /// # Errors
    ///
    /// When the service is not there or rejects it.
    pub fn connect(address: &str, calling_ae_title: &str, objects: &[Outgoing]) -> Result<Self> {
        let mut options = ClientAssociationOptions::new()
            .calling_ae_title(calling_ae_title.to_owned())
            .called_ae_title("TEZ");
        let mut kinds: Vec<_> = objects
            .iter()
            .map(|object| (&object.sop_class_uid, &object.transfer_syntax_uid))
            .collect();
        kinds.sort();
        kinds.dedup();
        for (sop_class_uid, transfer_syntax_uid) in kinds {
            options = options.with_presentation_context(
                sop_class_uid.clone(),
                vec![transfer_syntax_uid.clone()],
            );
        }
        let mut association = options.establish(address)?;
        association.inner_stream().set_nodelay(true)?;
        Ok(Self {
            association,
            message_id: 0,
        })
    }

    /// Sends one object and waits for its status.
    ///
    /// # Errors
    ///
    /// When the connection breaks before the response: the object is then not acknowledged.
    pub fn store(&mut self, object: &Outgoing) -> Result<u16> {
        self.message_id = self.message_id.wrapping_add(1);
        let context = self
            .association
            .presentation_contexts()
            .iter()
            .find(|context| {
                context.abstract_syntax.trim_end_matches('\0') == object.sop_class_uid
                    && context.transfer_syntax.trim_end_matches('\0') == object.transfer_syntax_uid
            })
            .context("the service accepted no presentation context for this object")?
            .id;
        let command = PDataValue {
            presentation_context_id: context,
            value_type: PDataValueType::Command,
            is_last: true,
            data: store_command(self.message_id, object)?,
        };
        self.association.send(&Pdu::PData {
            data: vec![command],
        })?;
        // An empty data set is one empty fragment, not none.
        let count = object.data_set.len().div_ceil(FRAGMENT_BYTES).max(1);
        for index in 0..count {
            let rest = object
                .data_set
                .get(index * FRAGMENT_BYTES..)
                .unwrap_or_default();
            let fragment = &rest[..rest.len().min(FRAGMENT_BYTES)];
            let data = PDataValue {
                presentation_context_id: context,
                value_type: PDataValueType::Data,
                is_last: index + 1 == count,
                data: fragment.to_vec(),
            };
            self.association.send(&Pdu::PData { data: vec![data] })?;
        }
        self.status()
    }

    fn status(&mut self) -> Result<u16> {
        let Pdu::PData { data } = self.association.receive()? else {
            bail!("the service answered something else than a response")
        };
        let bytes: Vec<u8> = data.into_iter().flat_map(|value| value.data).collect();
        let syntax = implicit_little_endian();
        let command = InMemDicomObject::read_dataset_with_ts(&bytes[..], &syntax)?;
        Ok(command.element(Tag(0x0000, 0x0900))?.to_int()?)
    }

    /// Releases the association: "there is no more".
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn release(self) -> Result<()> {
        Ok(self.association.release()?)
    }
}

/// The C-STORE-RQ command set (PS3.7 section 9.3.1.1).
fn store_command(message_id: u16, object: &Outgoing) -> Result<Vec<u8>> {
    let elements = [
        DataElement::new(
            Tag(0, 0x0002),
            VR::UI,
            dicom_value!(Str, object.sop_class_uid.as_str()),
        ),
        DataElement::new(Tag(0, 0x0100), VR::US, dicom_value!(U16, [0x0001])),
        DataElement::new(Tag(0, 0x0110), VR::US, dicom_value!(U16, [message_id])),
        DataElement::new(Tag(0, 0x0700), VR::US, dicom_value!(U16, [0x0000])),
        DataElement::new(Tag(0, 0x0800), VR::US, dicom_value!(U16, [0x0001])),
        DataElement::new(
            Tag(0, 0x1000),
            VR::UI,
            dicom_value!(Str, object.sop_instance_uid.as_str()),
        ),
    ];
    let command = InMemDicomObject::command_from_element_iter(elements);
    let mut bytes = Vec::new();
    command.write_dataset_with_ts(&mut bytes, &implicit_little_endian())?;
    Ok(bytes)
}

fn implicit_little_endian() -> dicom_encoding::TransferSyntax {
    dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN.erased()
}
