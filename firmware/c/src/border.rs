//! Pointers from C become references, or a status: all that C may get wrong and that can be seen is
//! looked at here.
//!
//! What cannot be seen is the caller's to keep, in every function of this crate:
//!
//! 1. A pointer is NULL, or it leads to as many values of its type as the function is told, which
//!    nobody changes while the function runs, and to memory that may be written if it is not `const`.
//! 2. The memory of a workspace is the library's alone from `cxl_workspace_init` on.
//! 3. Callbacks do what their comments say, return, and do not leave by `longjmp` or an exception.
//!
//! `SAFETY` comments call this the contract of C.
//!
//! **Invariant**: no null pointer, no unaligned one and no length beyond what an object can have
//! becomes a reference.

use core::mem::MaybeUninit;
use core::ptr;
use core::slice;

use crate::status::{Failure, cxl_argument, cxl_status};

/// A struct of C whose first field is its size, a `u32`.
///
/// # Safety
///
/// `repr(C)`; every field is an integer, a raw pointer, an `Option` of a function pointer, or a struct
/// or an array of such: all bytes that C may write there are a value, and zeroes are.
pub(crate) unsafe trait Sized32: Copy {
    /// Bytes of the first version of the struct.
    const FIRST: usize;
}

/// All zeroes.
pub(crate) fn zeroed<T: Sized32>() -> T {
    // SAFETY: zeroes are a value, by the trait.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn checked<T>(pointer: *const T) -> Result<(), Failure> {
    match pointer {
        pointer if pointer.is_null() => Err(cxl_status::Null.into()),
        pointer if !pointer.is_aligned() => Err(cxl_status::Unaligned.into()),
        _ => Ok(()),
    }
}

/// Whether so many values are an object that can be.
fn length<T>(count: usize) -> Result<(), Failure> {
    let bytes = count.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
    let wrong = || Failure::argument(cxl_argument::Length, 0, count as u64);
    bytes.map(|_| ()).ok_or_else(wrong)
}

/// What a pointer leads to.
///
/// # Safety
///
/// The contract of C.
pub(crate) unsafe fn object<'a, T>(pointer: *const T) -> Result<&'a T, Failure> {
    checked(pointer)?;
    // SAFETY: not null, aligned, and by the contract of C a value that stays.
    Ok(unsafe { &*pointer })
}

/// Puts a value where a pointer leads.
///
/// # Safety
///
/// The contract of C.
pub(crate) unsafe fn put<T>(pointer: *mut T, value: T) -> Result<(), Failure> {
    checked(pointer)?;
    // SAFETY: not null, aligned, and by the contract of C to be written.
    unsafe { pointer.write(value) };
    Ok(())
}

/// A list; NULL is an empty one.
///
/// # Safety
///
/// The contract of C.
pub(crate) unsafe fn list<'a, T>(pointer: *const T, count: usize) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    checked(pointer)?;
    length::<T>(count)?;
    // SAFETY: not null, aligned, no longer than an object can be, and by the contract of C as many
    // values.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// A buffer to be written; NULL is an empty one. It is cleared first: C need not have written to it.
///
/// # Safety
///
/// The contract of C.
pub(crate) unsafe fn buffer<'a>(pointer: *mut u8, length_: usize) -> Result<&'a mut [u8], Failure> {
    if length_ == 0 {
        return Ok(&mut []);
    }
    checked(pointer)?;
    length::<u8>(length_)?;
    // SAFETY: not null, and by the contract of C as many bytes to be written.
    unsafe { pointer.write_bytes(0, length_) };
    // SAFETY: the same, all of them written now, and nobody else's while the function runs.
    Ok(unsafe { slice::from_raw_parts_mut(pointer, length_) })
}

/// A struct that may be of another version: what C does not know yet is 0, and what the library does
/// not know has to be.
///
/// # Safety
///
/// The contract of C, where the struct has as many bytes as its first field says.
pub(crate) unsafe fn sized<T: Sized32>(pointer: *const T) -> Result<T, Failure> {
    // SAFETY: the contract of C.
    let given = unsafe { size_given(pointer) }?;
    let known = size_of::<T>();
    let bytes = pointer.cast::<u8>();
    // SAFETY: as many bytes as its first field says; behind what is known there is no padding that C
    // need not have written: a struct that grows names what it grows by.
    let behind = unsafe { list(bytes.wrapping_add(known), given.saturating_sub(known)) }?;
    if behind.iter().any(|byte| *byte != 0) {
        return Err(cxl_status::Size.into());
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: no more than either has, and they do not overlap: one is a local of this function.
    unsafe { ptr::copy_nonoverlapping(bytes, value.as_mut_ptr().cast(), given.min(known)) };
    // SAFETY: zeroes and bytes that C wrote are a value, by the trait.
    Ok(unsafe { value.assume_init() })
}

/// Puts a struct where C has one of perhaps another version, as far as C knows it. The size stays what
/// C says, and what only C knows becomes 0.
///
/// # Safety
///
/// The contract of C, where the struct has as many bytes as its first field says.
pub(crate) unsafe fn put_sized<T: Sized32>(pointer: *mut T, value: T) -> Result<(), Failure> {
    // SAFETY: the contract of C.
    let given = unsafe { size_given(pointer) }?;
    let (known, size) = (size_of::<T>(), size_of::<u32>());
    let at = |offset| pointer.cast::<u8>().wrapping_add(offset);
    // SAFETY: behind the size, within what C has.
    unsafe { at(size).write_bytes(0, given.saturating_sub(size)) };
    let bytes = ptr::from_ref(&value).cast::<u8>().wrapping_add(size);
    // SAFETY: no more than either has behind the size; one is a local of this function.
    unsafe { ptr::copy_nonoverlapping(bytes, at(size), given.min(known).saturating_sub(size)) };
    Ok(())
}

/// The size that C says a struct has.
///
/// # Safety
///
/// The contract of C.
unsafe fn size_given<T: Sized32>(pointer: *const T) -> Result<usize, Failure> {
    checked(pointer)?;
    // SAFETY: not null and aligned for what begins with it; by the contract of C a value.
    let given = unsafe { pointer.cast::<u32>().read() };
    let given = usize::try_from(given).unwrap_or(usize::MAX);
    length::<u8>(given)?;
    if given < T::FIRST { Err(cxl_status::Size.into()) } else { Ok(given) }
}
