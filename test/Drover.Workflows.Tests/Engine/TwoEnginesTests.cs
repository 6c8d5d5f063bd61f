using Drover.TestKit;

namespace Drover.Workflows.Tests.Engine;

public sealed class TwoEnginesTests
{
    [Fact]
    public async Task A_cancel_by_another_engine_reaches_a_running_step()
    {
        var begun = new TaskCompletionSource();
        var ended = new TaskCompletionSource();
        var blocked = Workflow.Define<int>("blocked", async context =>
        {
            await context.StepAsync("wait", async step =>
            {
                step.CancellationToken.Register(ended.SetResult);
                begun.SetResult();
                await Task.Delay(Timeout.Infinite, step.CancellationToken);
            });
            return 1;
        });
        await using var harness = new EngineHarness();
        WorkflowEngine runs = await harness.StartAsync(blocked);
        WorkflowEngine cancels = await harness.StartAsync(harness.Options());
        WorkflowHandle<int> handle = await runs.Client.StartAsync(blocked);
        await begun.Task;
        Assert.Equal([handle.Id], await cancels.Client.CancelAsync([handle.Id]));
        await ended.Task.WaitAsync(Eventually.Bound);
        Assert.Equal(ErrorCode.Cancelled, (await Assert.ThrowsAsync<DroverException>(() => handle.ResultAsync())).Code);
    }

    [Fact]
    public async Task Two_engines_share_a_queue_within_its_global_limit_and_nobody_runs_twice()
    {
        var queue = new WorkflowQueue("shared") { Concurrency = 3 };
        int now = 0, most = 0, runs = 0;
        var counted = Workflow.Define<int, int>("counted", async (context, n) => await context.StepAsync("s", async _ =>
        {
            int running = Interlocked.Increment(ref now);
            InterlockedMax(ref most, running);
            Interlocked.Increment(ref runs);
            await Task.Yield();
            Interlocked.Decrement(ref now);
            return n;
        }));
        await using var harness = new EngineHarness();
        WorkflowEngine a = await harness.StartAsync(harness.Options(counted).AddQueue(queue));
        WorkflowEngine b = await harness.StartAsync(harness.Options(counted).AddQueue(queue));
        await using WorkflowClient client = await WorkflowClient.ConnectAsync(harness.Options(counted));
        var handles = new List<WorkflowHandle<int>>();
        for (int i = 0; i < 200; i++)
            handles.Add(await client.EnqueueAsync(queue, counted, i, new() { Version = "v1" }));
        for (int i = 0; i < handles.Count; i++)
            Assert.Equal(i, await handles[i].ResultAsync());
        Assert.Equal(200, runs);
        Assert.InRange(most, 1, 3);
        Assert.All(await a.Client.ListAsync(new() { QueueName = "shared" }), w => Assert.Contains(w.ExecutorId, (string[])[a.ExecutorId, b.ExecutorId]));
    }

    private static void InterlockedMax(ref int most, int value)
    {
        for (int seen = Volatile.Read(ref most); value > seen; seen = Volatile.Read(ref most))
        {
            if (Interlocked.CompareExchange(ref most, value, seen) == seen)
                return;
        }
    }

    [Fact]
    public async Task A_name_without_a_body_here_waits_for_the_engine_that_has_it()
    {
        var queue = new WorkflowQueue("mixed");
        var known = Workflow.Define<int, int>("known", (_, n) => Task.FromResult(n));
        var foreign = Workflow.Define<int, int>("foreign", (_, n) => Task.FromResult(n));
        await using var harness = new EngineHarness();
        WorkflowEngine first = await harness.StartAsync(harness.Options(known).AddQueue(queue));
        WorkflowHandle<int> waiting = await first.Client.EnqueueAsync(queue, foreign, 1);
        Assert.Equal(2, await (await first.Client.EnqueueAsync(queue, known, 2)).ResultAsync());
        Assert.Equal(WorkflowState.Enqueued, (await waiting.StatusAsync())!.State);
        WorkflowEngine second = await harness.StartAsync(harness.Options(foreign).AddQueue(queue));
        Assert.Equal(1, await second.Client.Handle<int>(waiting.Id).ResultAsync());
    }
}
