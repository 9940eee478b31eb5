"""Data parallel training of a backbone with blocks."""

from pathlib import Path

import commands  # noqa: F401  (what its processes import)
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.registry import MODELS
from reference import randomize
from torch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.slow


def backbone():
    import nl_plugins  # noqa: F401

    model = MODELS.build(
        dict(
            type='nl_plugins.WithBlocks',
            base='mmdet.ResNet',
            depth=18,
            base_channels=8,
            stem_channels=8,
            norm_eval=True,
            blocks=[
                dict(type='nl_plugins.NonLocal2d', before='layer3.-1'),
                dict(
                    type='nl_plugins.DisentangledNonLocal2d',
                    reduction=4,
                    gate='scalar',
                    after=['layer2.0', 'layer4.-1'],
                ),
            ],
        )
    )
    randomize(model, 0.1).train()
    return model


def gradients(model, x):
    sum(out.square().mean() for out in model(x)).backward()
    return {
        name.removeprefix('module.'): p.grad for name, p in model.named_parameters()
    }


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    x = torch.load(f'{folder}/x.pt')
    result = gradients(DistributedDataParallel(backbone()), x.chunk(2)[rank])
    torch.save(result, f'{folder}/gradients_{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.parametrize('process', ['worker', 'sharded_worker'])
def test_two_processes_give_the_gradients_of_the_doubled_batch(process, tmp_path):
    if process == 'sharded_worker':
        pytest.importorskip('torch.distributed.fsdp', reason='of PyTorch 2.6 on')
    x = torch.randn(4, 3, 64, 64)
    torch.save(x, Path(tmp_path, 'x.pt'))
    mp.start_processes(
        globals()[process], (str(tmp_path),), nprocs=2, start_method='forkserver'
    )
    model = backbone()
    expected = gradients(model, x)
    largest = max(g.abs().max() for g in expected.values())
    for rank in 0, 1:
        actual = torch.load(Path(tmp_path, f'gradients_{rank}.pt'))
        assert actual.keys() == expected.keys()
        for name, gradient in expected.items():
            limit = 1e-5 * max(gradient.abs().max(), 0.1 * largest)
            assert (actual[name] - gradient).abs().max() < limit, name
    assert any('non_local_block' in name for name in expected)


def sharded_worker(rank, folder):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    model, mesh = backbone(), init_device_mesh('cpu', (2,))
    for module in model.modules():
        if 'non_local' in getattr(module, '_abbr_', ''):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    x = torch.load(f'{folder}/x.pt')
    result = gradients(model, x.chunk(2)[rank])
    whole = {name: gradient.full_tensor() for name, gradient in result.items()}
    torch.save(whole, f'{folder}/gradients_{rank}.pt')
    dist.destroy_process_group()
