"""Draw what segmentors predict, side by side, and what their blocks attend to.

The images are those that the first model is tested on.
"""
import argparse
from pathlib import Path

from mmengine.runner import CheckpointLoader
from torch import nn

from nl_plugins import checks, command_line, loading, upgrade
from nl_plugins.errors import OptionError
from nl_plugins.visualization import attention_maps, predictions


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--model',
        nargs=3,
        action='append',
        required=True,
        dest='models',
        metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
        help='name in the picture, config and checkpoint of a segmentor; '
        'repeat it for each one')
    parser.add_argument(
        '--samples',
        nargs='+',
        type=int,
        default=[0],
        metavar='N',
        help='numbers of the images in the data set (default: 0)')
    parser.add_argument(
        '--point',
        nargs=3,
        type=int,
        action='append',
        default=[],
        dest='points',
        metavar=('N', 'X', 'Y'),
        help='also draw the attention of each block, seen from this column '
        'and row of this image; repeat it for more')
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='DIR',
        help='write predictions.png and attention.png there')
    parser.add_argument('--device', default='cpu')
    return parser.parse_args()


def load_model(config: str, checkpoint: str, device: str) -> nn.Module:
    """A segmentor that is certain to have the checkpoint's parameters.

    Upstream's non-local blocks become ours, which can be looked into.
    """
    checks.check_checkpoint(checkpoint)
    cfg = loading.load_config(config)
    checks.check_datasets(cfg, 'test')
    from mmseg.apis import init_model
    model = init_model(cfg, device=device)
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu')
    checks.check_fit(model, content, checkpoint, config)
    upgrade(model)
    return model


def main() -> None:
    args = parse_args()
    names = [name for name, _, _ in args.models]
    with command_line.clear_errors():
        if len(set(names)) < len(names):
            raise OptionError('each --model needs a name of its own, but got '
                              + ', '.join(names))
        models = {
            name: load_model(config, checkpoint, args.device)
            for name, config, checkpoint in args.models
        }
        dataset = predictions.dataset_of(models[names[0]])
        predictions.check_samples(
            dataset, [*args.samples, *(n for n, _, _ in args.points)])
        args.out.mkdir(parents=True, exist_ok=True)
        predictions.draw_predictions(models, args.samples,
                                     args.out / 'predictions.png')
        if args.points:
            with_block = {
                name: model
                for name, model in models.items()
                if attention_maps.find_blocks(model)
            }
            queries = [(dataset.get_data_info(n)['img_path'], (x, y))
                       for n, x, y in args.points]
            # without any, the error says that there is none
            attention_maps.draw_attention(with_block or models, queries,
                                          args.out / 'attention.png')


if __name__ == '__main__':
    main()
