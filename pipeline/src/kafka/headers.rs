//! Headers of a consumed record. The wrapper's own iterator panics on a name that is not UTF-8,
//! and any client can write one: a single such record would end every consumer that meets it.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr;

use rdkafka::bindings as ffi;
use rdkafka::message::BorrowedMessage;

/// What stands for a name that is no text. Nobody looks for it.
const NO_TEXT: &str = "\u{fffd}";

/// Names and values of a message's headers, in order.
pub(super) struct RawHeaders<'m> {
    headers: *mut ffi::rd_kafka_headers_t,
    index: usize,
    message: PhantomData<&'m ()>,
}

impl<'m> RawHeaders<'m> {
    pub(super) fn of(message: &'m BorrowedMessage<'_>) -> RawHeaders<'m> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message lives; it keeps what it gives out until it is destroyed. Without
        // headers the call fails and leaves the pointer null.
        unsafe { ffi::rd_kafka_message_headers(message.ptr(), &mut headers) };
        RawHeaders { headers, index: 0, message: PhantomData }
    }
}

impl<'m> Iterator for RawHeaders<'m> {
    type Item = (&'m str, Option<&'m [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.headers.is_null() {
            return None;
        }
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers live as long as the message, which `'m` borrows; name and value
        // point into them, the name ends with a zero, the value is `size` bytes long.
        unsafe {
            let error = ffi::rd_kafka_header_get_all(
                self.headers,
                self.index,
                &mut name,
                &mut value,
                &mut size,
            );
            if error != ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            self.index += 1;
            let value =
                (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
            Some((CStr::from_ptr(name).to_str().unwrap_or(NO_TEXT), value))
        }
    }
}

/// A consumed record's headers in order; a name that is no text is replaced.
pub fn header_list(message: &BorrowedMessage<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    RawHeaders::of(message)
        .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
        .collect()
}

/// The text of a consumed record's last header named `name`.
pub fn header_text(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let value = RawHeaders::of(message).filter(|(key, _)| *key == name).last()?.1?;
    std::str::from_utf8(value).ok().map(str::to_owned)
}
