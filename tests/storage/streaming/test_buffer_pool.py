"""Memory is lent again once nobody holds a part of it, and not before."""

import gc

import numpy as np
import torch

from gradshard.storage.streaming.buffer_pool import BufferPool


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_that_nobody_holds_is_lent_again():
    lender = BufferPool(100)
    first = address(lender.array((10, 10)))
    assert address(lender.array((5, 3))) == first


def test_memory_of_which_a_part_is_held_stays_as_it_is():
    lender = BufferPool(100)
    whole = lender.array((10, 10))
    whole[:] = 7
    held = torch.from_numpy(whole[3:5].reshape(-1)[2:])
    del whole
    gc.collect()
    for _ in range(3):
        lender.array((10, 10))[:] = 0
    assert (held == 7).all()
    kept = address(held.numpy())
    del held
    assert any(start <= kept < start + 100 for start in [address(lender.array((100,)))])


def test_several_loans_at_once_do_not_overlap():
    lender = BufferPool(100)
    loans = [lender.array((100,)) for _ in range(4)]
    for number, loan in enumerate(loans):
        loan[:] = number
    assert [set(loan.tolist()) for loan in loans] == [{0}, {1}, {2}, {3}]


def test_more_than_a_block_is_lent_too():
    lender = BufferPool(8)
    array = lender.array((4, 5))
    array[:] = np.arange(20).reshape(4, 5)
    assert array.sum() == 190
    small = lender.array((2, 2))
    assert small.shape == (2, 2)
