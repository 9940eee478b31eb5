"""Arrays of hostile files: both readers refuse them, and neither crashes."""

import _codecs
import copyreg
import multiprocessing
import pickle
import re

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader

from nl_plugins.checkpoints import caffe2
from nl_plugins.checkpoints.arrays import LoadedArray
from nl_plugins.errors import CheckpointReadError

reconstruct, _, _ = np.zeros(1).__reduce__()
scalar = np.float64(0).__reduce__()[0]
EMPTY = np.ndarray, (0,), b'b'
#: An address, as an array of objects would read it.
ADDRESS = (0x4141414141414141).to_bytes(8, 'little')
S8 = np.dtype, ('S8', False, True)
#: Flags of a type that holds references.
OBJECT_FLAGS = 0x3F


class Reduced:
    """Pickled, it is a call and the state that its result gets."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


class New:
    """Pickled, it is a new object of a class, with arguments."""

    def __init__(self, cls, *args):
        self.new = cls, *args

    @property
    def __class__(self):  # pickle compares it
        return self.new[0]

    def __reduce_ex__(self, protocol):
        return copyreg.__newobj__, self.new


def array(shape, dtype, data):
    return Reduced(reconstruct, EMPTY, (1, shape, dtype, False, data))


#: What is refused, and a word of the reason.
PAYLOADS = {
    'addresses as objects': (
        Reduced(np.ndarray, ((1,), 'O', ADDRESS)),
        'call of numpy.ndarray',
    ),
    'a plain array that is called': (
        Reduced(np.ndarray, ((2**40,), 'u1')),
        'call of numpy.ndarray',
    ),
    'objects': (array((1,), np.dtype('O'), [None]), "type 'O8?'"),
    'objects as bytes': (array((1,), np.dtype('O'), ADDRESS), "type 'O8?'"),
    'raw memory': (array((1,), np.dtype('V8'), ADDRESS), "type 'V8'"),
    'a structure': (array((1,), np.dtype([('a', 'O')]), [(1,)]), 'type'),
    'a structure in the state of a type': (
        array(
            (1,),
            Reduced(*S8, (3, '|', None, ('a',), {'a': (1, 0)}, 8, 1, OBJECT_FLAGS)),
            ADDRESS,
        ),
        'structured',
    ),
    'a type as text': (array((1,), 'O', ADDRESS), "type 'O'"),
    'more elements than bytes': (array((2**20,), np.dtype('f8'), ADDRESS), '8 bytes'),
    'a negative size': (array((-1,), np.dtype('f8'), b''), 'shape'),
    'a list for bytes': (array((1,), np.dtype('f8'), [1.0]), 'list'),
    'an object as a scalar': (Reduced(scalar, (np.dtype('O'), ADDRESS)), "type 'O8?'"),
    'a scalar of too few bytes': (Reduced(scalar, (np.dtype('f8'), b'1')), '1 bytes'),
    'an array of another class': (
        Reduced(reconstruct, (np.dtype, (0,), b'b')),
        'class',
    ),
    'a codec that does not exist': (
        Reduced(_codecs.encode, ('a', 'no_such_codec')),
        'codec',
    ),
}
#: What Python's own format can say, and PyTorch's reader does not take.
OF_PICKLE = {
    'a new array': (New(np.ndarray, (1,), 'O', ADDRESS), 'call of numpy.ndarray'),
    'attributes of a function': (
        pickle.PROTO
        + b'\x02'
        + pickle.GLOBAL
        + b'numpy.core.multiarray\nscalar\n'
        + pickle.NONE
        + pickle.EMPTY_DICT
        + pickle.BINUNICODE
        + b'\x08\x00\x00\x00function'
        + pickle.NEWTRUE
        + pickle.SETITEM
        + pickle.TUPLE2
        + pickle.BUILD
        + pickle.STOP,
        'attributes',
    ),
    'another codec': (Reduced(_codecs.encode, ('a', 'utf-8')), "'utf-8'"),
    'objects without a dict around them': ([None], 'dict'),
    'text as a parameter': (dict(a='text'), 'str is no array'),
}
#: What mmengine's own types could be made to do.
OF_MMENGINE = {
    'a new array': (New(np.ndarray, (1,), 'O', ADDRESS), 'call of numpy.ndarray'),
    'a schedule that is called': (
        Reduced(OneCycleParamScheduler, (1, 2)),
        'not callable',
    ),
    'a buffer of a wrong history': (Reduced(HistoryBuffer, ([1, 2], [1])), ''),
}


def in_a_process(load, path):
    """What a reader says about a file, in a process that may crash."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)

    def target():
        try:
            sender.send(f'loaded {load(path)!r}')
        except CheckpointReadError as error:
            sender.send(str(error))

    process = context.Process(target=target)
    process.start()
    process.join()
    assert process.exitcode == 0
    return receiver.recv()


def assert_refused(load, path, reason):
    message = in_a_process(load, path)
    assert message.startswith(path) and '\n' not in message
    assert re.search(reason, message), message


@pytest.mark.parametrize('name', PAYLOADS | OF_MMENGINE)
@pytest.mark.parametrize('zipped', [True, False])
def test_checkpoints(name, zipped, tmp_path):
    payload, reason = (PAYLOADS | OF_MMENGINE)[name]
    path = str(tmp_path / 'checkpoint.pth')
    torch.save(
        dict(state_dict={}, meta=payload), path, _use_new_zipfile_serialization=zipped
    )
    assert_refused(CheckpointLoader.load_checkpoint, path, reason)


@pytest.mark.parametrize('name', PAYLOADS | OF_PICKLE)
def test_files_of_caffe2(name, tmp_path):
    payload, reason = (PAYLOADS | OF_PICKLE)[name]
    path = tmp_path / 'model.pkl'
    path.write_bytes(
        payload
        if isinstance(payload, bytes)
        else pickle.dumps(
            payload if isinstance(payload, (list, dict)) else dict(a=payload),
            protocol=2,
        )
    )
    assert_refused(caffe2.read_blobs, str(path), reason)


def test_flags_of_a_type_are_not_taken_from_the_file(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    flagged = Reduced(*S8, (3, '|', None, None, None, 8, 1, OBJECT_FLAGS))
    torch.save([array((1,), flagged, b'8 bytes!')], path)
    (found,) = torch.load(path)
    assert found.dtype == np.dtype('S8') and not found.dtype.hasobject
    assert found.tolist() == [b'8 bytes!']


VALUES = [
    np.arange(3.0),
    np.zeros((2, 0)),
    np.array(5, np.int16),
    np.asfortranarray(np.arange(6, dtype='>f4').reshape(2, 3)),
    np.array([True, False]),
    np.array([1 + 2j], np.complex64),
    np.array(['a', 'bcd']),
    np.array([b'xy']),
    np.float64(1.5),
    np.float16(0.5),
    np.uint8(200),
    np.bool_(True),
    np.str_('text'),
    np.str_(''),
]


@pytest.mark.parametrize('zipped', [True, False])
def test_what_honest_files_hold(tmp_path, zipped):
    path = tmp_path / 'checkpoint.pth'
    torch.save(VALUES, path, _use_new_zipfile_serialization=zipped)
    for loaded, value in zip(torch.load(path), VALUES, strict=True):
        np.testing.assert_array_equal(loaded, value)
        # NumPy itself swaps the bytes when it reads
        assert loaded.dtype == value.dtype.newbyteorder('=')
        assert loaded.flags.f_contiguous == value.flags.f_contiguous


def test_a_loaded_array_computes_and_is_saved_as_a_plain_one(tmp_path):
    torch.save([np.arange(3.0), np.dtype('>i4')], tmp_path / 'first.pth')
    found, dtype = torch.load(tmp_path / 'first.pth')
    assert isinstance(found, LoadedArray)
    assert (np.append(found, 4) + 1).tolist() == [1, 2, 3, 5]
    assert torch.from_numpy(found).tolist() == [0, 1, 2]
    torch.save([found, found[1:], dtype], tmp_path / 'second.pth')
    assert b'nl_plugins' not in (tmp_path / 'second.pth').read_bytes()
    again, part, _ = torch.load(tmp_path / 'second.pth')
    assert again.tolist() == [0, 1, 2] and part.tolist() == [1, 2]
