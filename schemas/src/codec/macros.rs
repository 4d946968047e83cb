//! Declarations of records and enums, from which their codecs follow.

/// Declares a record: the struct and its codec, fields in the schema's order.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident: Copy { $($fields:tt)+ }) => {
        $crate::codec::record!(@declare [$(#[$meta])* #[derive(Copy)]] $name [] { $($fields)+ });
    };
    ($(#[$meta:meta])* pub struct $name:ident { $($fields:tt)+ }) => {
        $crate::codec::record!(@declare [$(#[$meta])*] $name ['a] { $($fields)+ });
    };
    (@declare [$($meta:tt)*] $name:ident [$($life:lifetime)?] {
        $($(#[$field_meta:meta])* pub $field:ident $(as $wire:literal)?: $type:ty,)+
    }) => {
        $($meta)*
        #[derive(Debug, Clone, PartialEq, Eq, ::serde::Serialize)]
        pub struct $name $(<$life>)? { $($(#[$field_meta])* $(#[serde(rename = $wire)])? pub $field: $type,)+ }

        impl<'a> $crate::codec::Field<'a> for $name $(<$life>)? {
            #[inline]
            fn put(&self, out: &mut Vec<u8>) { $(self.$field.put(out);)+ }

            #[inline]
            fn take(input: &mut &'a [u8]) -> Result<Self, $crate::codec::CodecError> {
                Ok($name { $($field: $crate::codec::Field::take(input)?,)+ })
            }

            fn to_value(&self) -> ::apache_avro::types::Value {
                ::apache_avro::types::Value::Record(vec![
                    $(($crate::codec::record!(@name $field $($wire)?).to_owned(), self.$field.to_value()),)+
                ])
            }

            fn from_value(value: ::apache_avro::types::Value) -> Result<Self, $crate::codec::CodecError> {
                let ::apache_avro::types::Value::Record(fields) = value else {
                    return Err($crate::codec::CodecError::Resolution("expected a record".to_owned()));
                };
                let mut fields = fields.into_iter();
                $(let $field = match fields.next() {
                    Some((name, value)) if name == $crate::codec::record!(@name $field $($wire)?) => {
                        $crate::codec::Field::from_value(value)?
                    }
                    other => return Err($crate::codec::CodecError::Resolution(format!(
                        "expected field {}, found {:?}", stringify!($field), other.map(|f| f.0)
                    ))),
                };)+
                Ok($name { $($field,)+ })
            }
        }
    };
    (@name $field:ident $wire:literal) => { $wire };
    (@name $field:ident) => { stringify!($field) };
}

/// Declares an enum: symbols in the schema's order.
macro_rules! symbols {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$symbol_meta:meta])* $symbol:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize)]
        pub enum $name { $($(#[$symbol_meta])* #[serde(rename = $text)] $symbol,)+ }

        impl $name {
            /// Every symbol, in the schema's order.
            pub const ALL: &'static [$name] = &[$($name::$symbol,)+];

            /// The symbol as it is written.
            #[inline]
            pub const fn name(self) -> &'static str {
                match self { $($name::$symbol => $text,)+ }
            }

            /// The symbol with this name.
            pub fn from_name(name: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|symbol| symbol.name() == name)
            }
        }

        impl<'a> $crate::codec::Field<'a> for $name {
            #[inline]
            fn put(&self, out: &mut Vec<u8>) { $crate::codec::put_long(*self as i64, out); }

            #[inline]
            fn take(input: &mut &'a [u8]) -> Result<Self, $crate::codec::CodecError> {
                let index = $crate::codec::take_long(input)?;
                usize::try_from(index).ok().and_then(|i| $name::ALL.get(i)).copied()
                    .ok_or($crate::codec::CodecError::Symbol(index))
            }

            fn to_value(&self) -> ::apache_avro::types::Value {
                ::apache_avro::types::Value::Enum(*self as u32, self.name().to_owned())
            }

            fn from_value(value: ::apache_avro::types::Value) -> Result<Self, $crate::codec::CodecError> {
                match value {
                    ::apache_avro::types::Value::Enum(index, _) => $name::ALL.get(index as usize).copied()
                        .ok_or($crate::codec::CodecError::Symbol(i64::from(index))),
                    other => Err($crate::codec::CodecError::Resolution(format!("expected an enum, found {other:?}"))),
                }
            }
        }
    };
}

pub(crate) use {record, symbols};
