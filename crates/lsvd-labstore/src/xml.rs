//! Listings and errors as the XML that S3's clients read.
//!
//! Writes only: no request of those that are served has XML in it.

use std::fmt::Write;

use crate::calendar::iso_date;
use crate::objects::{Entry, Page};
use crate::refusal::Refusal;
use crate::request::Listing;

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// Appends `<name>text</name>`, with the text escaped.
fn element(xml: &mut String, name: &str, text: &str) {
    let _ = write!(xml, "<{name}>");
    for c in text.chars() {
        match c {
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '&' => xml.push_str("&amp;"),
            '"' => xml.push_str("&quot;"),
            c if c.is_control() => {
                let _ = write!(xml, "&#{};", u32::from(c));
            }
            c => xml.push(c),
        }
    }
    let _ = write!(xml, "</{name}>");
}

/// A `ListBucketResult` of ListObjectsV2.
pub(crate) fn page(bucket: &str, listing: &Listing, page: &Page) -> String {
    let mut xml = String::with_capacity(512 + page.entries.len() * 256);
    xml.push_str(HEAD);
    xml.push_str("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    element(&mut xml, "Name", bucket);
    element(&mut xml, "Prefix", &listing.prefix);
    if let Some(delimiter) = &listing.delimiter {
        element(&mut xml, "Delimiter", delimiter);
    }
    if let Some(after) = &listing.start_after {
        element(&mut xml, "StartAfter", after);
    }
    if let Some(token) = &listing.token {
        element(&mut xml, "ContinuationToken", token);
    }
    element(&mut xml, "MaxKeys", &listing.keys_max.to_string());
    element(&mut xml, "KeyCount", &page.entries.len().to_string());
    element(&mut xml, "IsTruncated", if page.next.is_some() { "true" } else { "false" });
    if let Some(next) = &page.next {
        element(&mut xml, "NextContinuationToken", next);
    }
    for entry in &page.entries {
        match entry {
            Entry::Object { key, object } => {
                xml.push_str("<Contents>");
                element(&mut xml, "Key", key);
                element(&mut xml, "LastModified", &iso_date(object.written));
                element(&mut xml, "ETag", &object.etag());
                element(&mut xml, "Size", &object.bytes.len().to_string());
                element(&mut xml, "StorageClass", "STANDARD");
                xml.push_str("</Contents>");
            }
            Entry::Prefix(prefix) => {
                xml.push_str("<CommonPrefixes>");
                element(&mut xml, "Prefix", prefix);
                xml.push_str("</CommonPrefixes>");
            }
        }
    }
    xml.push_str("</ListBucketResult>");
    xml
}

/// An `Error`.
pub(crate) fn refusal(refusal: &Refusal, path: &str) -> String {
    let mut xml = String::from(HEAD);
    xml.push_str("<Error>");
    element(&mut xml, "Code", refusal.code);
    element(&mut xml, "Message", &refusal.message);
    element(&mut xml, "Resource", path);
    element(&mut xml, "RequestId", "lab");
    xml.push_str("</Error>");
    xml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let mut xml = String::new();
        element(&mut xml, "Key", "a<b>&\"c\" é\n");
        assert_eq!(xml, "<Key>a&lt;b&gt;&amp;&quot;c&quot; é&#10;</Key>");
    }
}
