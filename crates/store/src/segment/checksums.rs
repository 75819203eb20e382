//! Checksums of pages: CRC-32 in each page's header, as the format has it ([Parquet, "Checksumming"]). Readers that check them
//! find damage in what they read, whether it would still decode or not; parquet-rs does, but does not write them. They are of what a
//! page holds, not of its header: that one is wrong about its rows shows when another column is read, too, or by the file's checksum.
//!
//! [Parquet, "Checksumming"]: https://parquet.apache.org/docs/file-format/data-pages/checksumming/

use std::{io::Write, ops::Range};

use bytes::Bytes;
use parquet::{
    column::writer::ColumnCloseResult,
    errors::{ParquetError, Result},
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData},
        page_index::column_index::ColumnIndexMetaData,
        writer::SerializedFileWriter,
    },
};
use prost::encoding::{decode_varint, encode_varint};

/// Adds the only row group of a file, which is in memory, to another file, with checksums.
pub(super) fn add_row_group<W: Write + Send>(
    file: &mut SerializedFileWriter<W>,
    bytes: &Bytes,
    metadata: &ParquetMetaData,
) -> Result<()> {
    let mut row_group = file.next_row_group()?;
    let group = metadata.row_group(0);
    let of_group = |what: &str| ParquetError::General(format!("a row group was written without {what}"));
    let places = metadata.offset_index().and_then(|groups| groups.first());
    let places = places.ok_or_else(|| of_group("the places of its pages"))?;
    let ranges = metadata.column_index().and_then(|groups| groups.first());
    for (column, chunk) in group.columns().iter().enumerate() {
        let mut places = places[column].clone();
        let mut pages = Vec::with_capacity(places.page_locations.len() + 1);
        if let Some(start) = chunk.dictionary_page_offset() {
            pages.push(start as usize..chunk.data_page_offset() as usize);
        }
        pages.extend(places.page_locations.iter().map(|page| {
            let start = page.offset as usize;
            start..start + page.compressed_page_size as usize
        }));
        let (mut chunk_bytes, mut written) = (Vec::new(), Vec::with_capacity(pages.len()));
        for page in pages {
            let start = chunk_bytes.len();
            add_page(&mut chunk_bytes, &bytes[page])?;
            written.push(start..chunk_bytes.len());
        }
        let chunk = moved(chunk, &written, chunk_bytes.len())?;
        let data_pages = &written[usize::from(chunk.dictionary_page_offset().is_some())..];
        for (place, page) in places.page_locations.iter_mut().zip(data_pages) {
            place.offset = page.start as i64;
            place.compressed_page_size = page.len() as i32;
        }
        let column_index = ranges.map(|ranges| ranges[column].clone());
        let close = ColumnCloseResult {
            bytes_written: chunk_bytes.len() as u64,
            rows_written: group.num_rows() as u64,
            metadata: chunk,
            bloom_filter: None,
            column_index: column_index.filter(|index| !matches!(index, ColumnIndexMetaData::NONE)),
            offset_index: Some(places),
        };
        row_group.append_column(&Bytes::from(chunk_bytes), close)?;
    }
    row_group.close()?;
    Ok(())
}

/// What is said of a column chunk whose pages, the dictionary first, are now here.
fn moved(chunk: &ColumnChunkMetaData, pages: &[Range<usize>], bytes: usize) -> Result<ColumnChunkMetaData> {
    let longer = bytes as i64 - chunk.compressed_size();
    let dictionary = chunk.dictionary_page_offset().map(|_| 0);
    let first = pages.get(usize::from(dictionary.is_some())).map_or(bytes, |page| page.start);
    chunk
        .clone()
        .into_builder()
        .set_total_compressed_size(bytes as i64)
        .set_total_uncompressed_size(chunk.uncompressed_size() + longer)
        .set_dictionary_page_offset(dictionary)
        .set_data_page_offset(first as i64)
        .build()
}

/// Where a page's header says of what kind it is, in Thrift's compact protocol: the high bits of a byte are the distance from the
/// field before.
const FIELD: u8 = 0x10;
/// An integer of 32 bits that is the field after the one before.
const NEXT_IS_I32: u8 = FIELD | 5;

/// Adds a page without a checksum as one with it. Its header is a `PageHeader`: type, size uncompressed, size compressed, then the
/// checksum, then what only pages of its type have.
fn add_page(to: &mut Vec<u8>, page: &[u8]) -> Result<()> {
    let unexpected = || ParquetError::General("a page's header is not as parquet-rs writes it".to_owned());
    let (sizes, content) = parts(page).ok_or_else(unexpected)?;
    let of_type = *page.get(sizes).filter(|next| **next >= 2 * FIELD).ok_or_else(unexpected)?;
    let checksum = crc32fast::hash(&page[content..]);
    to.extend_from_slice(&page[..sizes]);
    to.push(NEXT_IS_I32);
    encode_varint(zigzag(checksum as i32), to);
    to.push(of_type - FIELD);
    to.extend_from_slice(&page[sizes + 1..]);
    Ok(())
}

/// Where in a page type and sizes end, and where the header does.
fn parts(page: &[u8]) -> Option<(usize, usize)> {
    let mut rest = page;
    let mut size = 0;
    for _ in 0..3 {
        rest = rest.strip_prefix(&[NEXT_IS_I32])?;
        size = unzigzag(decode_varint(&mut rest).ok()?);
    }
    let content = page.len().checked_sub(usize::try_from(size).ok()?)?;
    Some((page.len() - rest.len(), content))
}

fn zigzag(number: i32) -> u64 {
    u64::from(((number << 1) ^ (number >> 31)) as u32)
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::{
        array::{ArrayRef, Int64Array, MapBuilder, RecordBatch, StringArray, StringBuilder, new_null_array},
        datatypes::DataType,
    };
    use parquet::{
        arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
        basic::{Compression, Encoding},
        file::{
            metadata::{PageIndexPolicy, ParquetMetaDataReader},
            properties::WriterProperties,
        },
        schema::types::ColumnPath,
    };

    fn rows() -> RecordBatch {
        let times = Int64Array::from_iter_values((0..1000).map(|row: i64| row * 7919 % 5000));
        let names: StringArray =
            (0..1000).map(|row| (row % 7 > 0).then(|| format!("name {}", row % 9))).collect();
        let ids: StringArray = (0..1000).map(|row| Some(format!("id {row}"))).collect();
        let mut more = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for row in 0..1000 {
            for entry in 0..row % 4 {
                more.keys().append_value(format!("key {entry}"));
                more.values().append_option((row % 3 > 0).then(|| format!("value {row}")));
            }
            more.append(row % 5 > 0).unwrap();
        }
        let columns: [(&str, ArrayRef); 6] = [
            ("time", Arc::new(times)),
            ("name", Arc::new(names)),
            ("id", Arc::new(ids.clone())),
            // With a dictionary for its first rows only.
            ("page", Arc::new(ids)),
            ("nothing", new_null_array(&DataType::Utf8, 1000)),
            ("more", Arc::new(more.finish())),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn file() -> Bytes {
        let properties = WriterProperties::builder()
            .set_data_page_row_count_limit(100)
            .set_dictionary_page_size_limit(500)
            .set_write_batch_size(50)
            .set_column_dictionary_enabled(ColumnPath::from("time"), false)
            .set_column_encoding(ColumnPath::from("time"), Encoding::DELTA_BINARY_PACKED)
            .set_column_dictionary_enabled(ColumnPath::from("id"), false)
            .set_column_compression(ColumnPath::from("name"), Compression::ZSTD(Default::default()))
            .build();
        let properties = Arc::new(properties);
        let mut group =
            ArrowWriter::try_new(Vec::new(), rows().schema(), Some((*properties).clone())).unwrap();
        group.write(&rows()).unwrap();
        let metadata = group.finish().unwrap();
        let bytes = Bytes::from(std::mem::take(group.inner_mut()));
        let schema = metadata.file_metadata().schema_descr().root_schema_ptr();
        let mut file = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
        add_row_group(&mut file, &bytes, &metadata).unwrap();
        add_row_group(&mut file, &bytes, &metadata).unwrap();
        file.into_inner().unwrap().into()
    }

    /// Each column for itself: others don't show what is wrong with it.
    fn read(file: &Bytes, column: usize) -> Result<Vec<RecordBatch>, Box<dyn std::error::Error>> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone())?;
        let columns = ProjectionMask::roots(builder.parquet_schema(), [column]);
        let reader = builder.with_projection(columns).with_batch_size(1000).build()?;
        Ok(reader.collect::<Result<_, _>>()?)
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let file = file();
        for column in 0..rows().num_columns() {
            let written = rows().project(&[column]).unwrap();
            assert_eq!(read(&file, column).unwrap(), [written.clone(), written]);
        }
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
        let page =
            metadata.row_group(1).columns().iter().find(|column| column.column_path().string() == "page");
        let encodings: Vec<_> = page.unwrap().encodings().collect();
        assert!(encodings.contains(&Encoding::PLAIN) && encodings.contains(&Encoding::RLE_DICTIONARY));
    }

    /// Where the contents of pages are, and of which column.
    fn contents(file: &Bytes) -> Vec<(usize, usize)> {
        let policy = PageIndexPolicy::Required;
        let metadata =
            ParquetMetaDataReader::new().with_page_index_policy(policy).parse_and_finish(file).unwrap();
        let places = &metadata.offset_index().unwrap();
        let mut found = Vec::new();
        for (group, places) in metadata.row_groups().iter().zip(*places) {
            for (leaf, (chunk, places)) in group.columns().iter().zip(places).enumerate() {
                let column = metadata.file_metadata().schema_descr().get_column_root_idx(leaf);
                let dictionary = chunk.dictionary_page_offset().map(|start| start..chunk.data_page_offset());
                let pages = places.page_locations().iter();
                let pages = pages.map(|page| page.offset..page.offset + i64::from(page.compressed_page_size));
                for page in dictionary.into_iter().chain(pages) {
                    let page = page.start as usize..page.end as usize;
                    let (_, content) = parts(&file[page.clone()]).unwrap();
                    found.extend((page.start + content..page.end).map(|place| (place, column)));
                }
            }
        }
        found
    }

    #[test]
    fn no_bit_of_a_page_changes_unnoticed() {
        let file = file();
        let contents = contents(&file);
        assert!(contents.len() > file.len() / 2);
        for (nth, (place, column)) in contents.into_iter().enumerate() {
            let mut damaged = file.to_vec();
            damaged[place] ^= 1 << (nth % 8);
            let found = read(&damaged.into(), column);
            assert!(found.is_err(), "bit {} of byte {place}: {found:?}", nth % 8);
        }
    }
}
