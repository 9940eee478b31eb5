"""The page that shows the attention of the pixel below the pointer."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from demo import segmentation
from mmengine.structures import BaseDataElement
from mmseg.datasets import CityscapesDataset

from nl_plugins import DisentangledNonLocal3d, NonLocal2d
from nl_plugins.engine.config import build_model, load_config
from nl_plugins.errors import OptionError
from nl_plugins.visualization import interactive, records
from nl_plugins.visualization.attention import build_visualizer
from nl_plugins.visualization.samples import sample_from_file

DNL = Path(__file__).parents[2] / 'configs' / 'demo' / 'dnl_r18-2stages_demo.py'
HEAD, BACKBONE = 'decode_head.dnl_block', 'backbone.layer1.0.non_local_block'
BROWSER = next(
    filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chrome'))), None
)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason='needs Chromium or Chrome')


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """A page of two blocks, the model, and a sample."""
    folder = tmp_path_factory.mktemp('page')
    segmentation.generate_dataset(folder, 2, 2)
    blocks = [dict(type='nl_plugins.NonLocal2d', after='layer1.0', mode='dot_product')]
    cfg = load_config(
        str(DNL),
        dict(
            model=dict(
                backbone=dict(
                    type='nl_plugins.WithBlocks', base='ResNet', blocks=blocks
                )
            )
        ),
    )
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    model.cfg = cfg
    # It has begun as an identity with even maps.
    block = records.find_blocks(model)[HEAD]
    torch.nn.init.normal_(block.conv_out.norm.weight, std=50)
    for projection in (block.theta.conv, block.phi.conv, block.conv_mask):
        torch.nn.init.normal_(projection.weight, std=0.3)
    image, _ = segmentation.find_queries(folder)[0]
    data = sample_from_file(cfg, image)
    visualizer = build_visualizer(cfg, str(folder), CityscapesDataset.METAINFO)
    interactive.write_page(model, data, visualizer, folder / 'page.html')
    return folder / 'page.html', model, data


def levels(packed):
    content = base64.b64decode(packed['picture'].partition(',')[2])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def weights_of(packed):
    """What the script of the page makes of the pictures: multiples of the mean."""
    peaks = np.array(packed['peaks'])[:, None, None]
    maps = levels(packed).reshape(-1, *packed['keys'])
    return (maps / 255.0) ** 2 * peaks


def maps_of(page):
    return json.loads(re.search(r'const blocks = (.*);', page.read_text())[1])


def test_the_maps_are_the_blocks_own(written):
    page, model, data = written
    found = maps_of(page)
    assert list(found) == [BACKBONE, HEAD]
    assert [list(terms) for terms in found.values()] == [
        ['pairwise'],
        ['pairwise', 'unary'],
    ]
    seen = records.record_all(model, data)[HEAD]
    rows, columns = found[HEAD]['pairwise']['queries']
    assert (rows, columns) == (11, 22)  # at most 256 of 12 x 24 positions
    drawn = weights_of(found[HEAD]['pairwise'])
    for row, column in ((0, 0), (3, 20), (10, 21)):
        place = [int((row + 0.5) * 12 / 11), int((column + 0.5) * 24 / 22)]
        pairwise, unary = seen.block.attention_weights(
            seen.features, torch.tensor([place])
        )
        expected = (pairwise[0, 0] / pairwise.mean()).numpy()
        difference = drawn[row * columns + column] - expected
        assert abs(difference).max() < 0.01 * expected.max()
    expected = (unary[0] / unary.mean()).numpy()
    assert abs(weights_of(found[HEAD]['unary'])[0] - expected).max() < (
        0.01 * expected.max()
    )


def test_frames_of_a_clip_lie_side_by_side():
    torch.manual_seed(0)
    block = DisentangledNonLocal3d(4, num_frames=None, temperature=1.0)
    seen = records.Record(
        'block',
        block,
        torch.randn(1, 4, 8, 3, 5),
        np.zeros((16, 24, 40, 3), np.uint8),
        (24, 40),
        (0, 0, 40, 24),
        BaseDataElement(),
    )
    # frames 3 and 12 lie in positions 1 and 6 of the block
    packed = interactive._maps(seen, [3, 12])
    assert packed['pairwise']['queries'] == (3, 10)
    assert packed['pairwise']['keys'] == (3, 10)
    place = torch.tensor([[6, 2, 1]])  # row 2, column 1 of the second frame
    pairwise, _ = block.attention_weights(seen.features, place)
    expected = (pairwise[0, 0] / pairwise.mean()).numpy()
    drawn = weights_of(packed['pairwise'])[2 * 10 + 5 + 1]
    assert packed['pairwise']['peaks'][26] == pytest.approx(expected.max(), rel=1e-3)
    assert abs(drawn[:, :5] - expected[1]).max() < 0.01 * expected.max()
    assert abs(drawn[:, 5:] - expected[6]).max() < 0.01 * expected.max()


def test_large_maps_are_reduced():
    seen = records.Record(
        'block',
        NonLocal2d(2, reduction=1),
        torch.randn(1, 2, 100, 200),
        np.zeros((1, 400, 800, 3), np.uint8),
        (400, 800),
        (0, 0, 800, 400),
        BaseDataElement(),
    )
    (packed,) = interactive._maps(seen, [0]).values()
    assert np.prod(packed['queries']) <= 256 and np.prod(packed['keys']) <= 8192
    assert packed['keys'] == (64, 128)  # in the proportion of 100 to 200


def test_the_page_shows_what_each_block_changes(written):
    text = written[0].read_text()
    sections = re.findall(
        r'<section data-block="(.*?)" hidden>(.*?)</section>', text, re.S
    )
    assert [name for name, _ in sections] == [BACKBONE, HEAD]
    changes = [re.search(r'<p>([\d.]+) % of the pixels', s)[1] for _, s in sections]
    assert changes[0] == '0.0' and changes[1] != '0.0'  # the first one is new
    pictures = re.findall(r'(with|without) the block" src="(data:.*?)"', text)
    assert [name for name, _ in pictures] == ['with', 'without'] * 2
    assert pictures[0][1] == pictures[1][1] and pictures[2][1] != pictures[3][1]
    assert not re.search(r'(src|href)="(?!data:)', text)  # needs no network


def test_a_model_without_blocks_has_no_page(tmp_path):
    model = torch.nn.Identity()
    with pytest.raises(OptionError, match='at least one non-local block'):
        interactive.write_page(model, {}, None, tmp_path / 'page.html')


def dump(page, fragment='', script=''):
    """The page after its scripts have run, as text."""
    copy = page.with_name('copy.html')
    extra = f'<script type="module">{script}</script></body>'
    copy.write_text(page.read_text().replace('</body>', extra))
    done = subprocess.run(
        [
            BROWSER,
            '--headless',
            '--no-sandbox',
            '--disable-gpu',
            '--disable-background-networking',
            '--virtual-time-budget=20000',
            '--window-size=1000,900',
            '--dump-dom',
            f'{copy.as_uri()}#{fragment}',
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@in_a_browser
def test_the_pointer_chooses_the_query(written):
    page = written[0]
    packed = maps_of(page)[HEAD]['pairwise']
    rows, columns = packed['queries']
    script = """
    const box = document.getElementById('stage').getBoundingClientRect();
    const event = new PointerEvent('pointermove', {
      clientX: box.left + .725 * box.width, clientY: box.top + .2 * box.height });
    document.getElementById('stage').dispatchEvent(event);
    await new Promise(done => setTimeout(done, 5000));
    const { width, height } = document.querySelector('canvas');
    const drawn = document.querySelector('canvas').getContext('2d')
      .getImageData(0, 0, width, height);
    document.title = JSON.stringify([width, height, ...drawn.data]);
    """
    text = dump(page, script=script)
    row, column = int(0.2 * rows), int(0.725 * columns)
    peak = packed['peaks'][row * columns + column]
    readout = re.search(r'<p id="readout".*?>(.*?)</p>', text)[1]
    assert readout.startswith(f'query {column + 1}, {row + 1} of {columns} × {rows}: ')
    assert float(re.search('peak ([0-9.e+]+) ', readout)[1]) == pytest.approx(
        peak, rel=0.01
    )
    # the colours of the map are those of its weights: brighter where larger
    width, height, *drawn = json.loads(re.search('<title>(.*?)</title>', text)[1])
    assert [height, width] == packed['keys']
    light = np.array(drawn).reshape(height, width, 4)[..., :3].sum(axis=2)
    weights = weights_of(packed)[row * columns + column]
    assert light.argmax() == weights.argmax()
    assert np.corrcoef(light.flatten(), weights.flatten())[0, 1] > 0.9


@in_a_browser
def test_the_address_restores_what_was_chosen(written):
    page = written[0]
    text = dump(page, f'block={HEAD}&term=unary&scale=uniform&x=0.5&y=0.5')
    assert re.search(r'<p id="readout".*?>all queries: peak ', text)
    assert '<span>0.1</span><span>10.0 × mean</span>' in text
    text = dump(page, f'block={BACKBONE}&term=unary&x=0.99&y=0.99')  # has no such term
    rows, columns = maps_of(page)[BACKBONE]['pairwise']['queries']
    assert f'query {columns}, {rows} of {columns} × {rows}: ' in text
    shown = re.findall(r'<section data-block="([^"]*)">', text)
    assert shown == [BACKBONE]
