"""A training script that keeps its own loop; with or without the service, with one rank or several."""

import argparse

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from xsam.sdk import start
from xsam_core import XSAM


def rows(number, seed):
    x = torch.randn(number, 10, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] * x[:, 1] + 0.5 * x[:, 2] > 0).long()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--lr", type=float, default=0.05)
    lr = options.parse_args().lr
    run = start(rho=0.05, epochs=4)  # what the job's `config` says wins

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2)).to(run.device)
    if run.world_size > 1:
        dist.init_process_group("nccl" if run.device.startswith("cuda") else "gloo")
        model = DistributedDataParallel(model)
    optimizer = XSAM(model.parameters(), torch.optim.SGD, model=model, lr=lr, rho=run.config["rho"])
    step = run.restore(model=model, optimizer=optimizer)  # 0 without a checkpoint

    (x, y), (test_x, test_y) = rows(512, 1), rows(256, 2)
    size, per_epoch = 32 // run.world_size, 512 // 32
    losses = []
    while step < run.config["epochs"] * per_epoch:
        epoch, number = divmod(step, per_epoch)
        order = torch.randperm(512, generator=torch.Generator().manual_seed(epoch))
        own = order[32 * number + run.rank * size :][:size]
        model.train()
        loss = optimizer.step(lambda own=own: F.cross_entropy(model(x[own]), y[own]), search_alpha=number == 0)
        step += 1
        losses.append(float(loss))
        run.report(step=step, loss=loss, optimizer=optimizer)
        if number + 1 == per_epoch:
            model.eval()
            with torch.inference_mode():
                logits = (model.module if run.world_size > 1 else model)(test_x)
            accuracy = (logits.argmax(1) == test_y).float().mean()
            mean = sum(losses) / len(losses)
            run.report(step=step, epoch=epoch + 1, loss=mean, optimizer=optimizer, accuracy=accuracy)
            losses = []
            run.save(step, model=model, optimizer=optimizer)
        if run.should_stop():
            run.save(step, model=model, optimizer=optimizer)
            return


if __name__ == "__main__":
    main()
