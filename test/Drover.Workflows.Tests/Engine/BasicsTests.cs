using Drover.TestKit;
using Drover.Workflows;

namespace Drover.Workflows.Tests.Engine;

public sealed class BasicsTests
{
    private static int s_runs;

    private static readonly Workflow<int, int> Sum = Workflow.Define<int, int>("sum", async (context, n) =>
    {
        int total = 0;
        for (int i = 1; i <= n; i++)
        {
            int k = i;
            total += await context.StepAsync("add", _ => Task.FromResult(k));
        }
        return total;
    });

    [Fact]
    public async Task P1_a_started_workflow_runs_its_steps_and_ends_with_a_result()
    {
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(Sum);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(Sum, 10);
        Assert.Equal(55, await handle.ResultAsync());
        IReadOnlyList<StepStatus> steps = await engine.Client.StepsAsync(handle.Id);
        Assert.Equal(Enumerable.Range(0, 10), steps.Select(s => s.Id));
    }

    [Fact]
    public async Task P2_the_same_id_attaches_to_the_first_execution()
    {
        var counted = Workflow.Define<int, int>("counted", async (context, n) =>
            await context.StepAsync("count", _ => Task.FromResult(Interlocked.Increment(ref s_runs) * 0 + n)));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(counted);
        int before = s_runs;
        WorkflowHandle<int> first = await engine.Client.StartAsync(counted, 1, new() { WorkflowId = "one" });
        WorkflowHandle<int> second = await engine.Client.StartAsync(counted, 2, new() { WorkflowId = "one" });
        Assert.Equal(1, await first.ResultAsync());
        Assert.Equal(1, await second.ResultAsync());
        Assert.Equal(before + 1, s_runs);
    }

    [Fact]
    public async Task A_failed_step_is_seen_by_the_body_and_fails_the_workflow()
    {
        var failing = Workflow.Define<int>("failing", async context =>
            await context.StepAsync<int>("bad", _ => throw new InvalidOperationException("no luck")));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(failing);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(failing);
        var error = await Assert.ThrowsAsync<WorkflowFailedException>(() => handle.ResultAsync());
        Assert.Equal("InvalidOperationException", error.ErrorName);
        Assert.Equal("no luck", error.Message);
    }

    [Fact]
    public async Task Retries_follow_the_options_and_the_filter()
    {
        int calls = 0;
        var retried = Workflow.Define<int>("retried", async context =>
            await context.StepAsync("flaky", step =>
            {
                calls++;
                return step.Attempt < 3 ? throw new IOException("again") : Task.FromResult(step.Attempt);
            }, new() { Attempts = 5, Backoff = TimeSpan.FromMilliseconds(1), RetryIf = e => e is IOException }));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(retried);
        Assert.Equal(3, await (await engine.Client.StartAsync(retried)).ResultAsync());
        Assert.Equal(3, calls);
    }

    [Fact]
    public async Task Enqueued_workflows_run_in_order_of_priority_then_age_within_the_global_limit()
    {
        var queue = new WorkflowQueue("q") { Concurrency = 1 };
        List<int> order = [];
        var note = Workflow.Define<int, int>("note", async (context, n) => await context.StepAsync("note", _ =>
        {
            lock (order)
                order.Add(n);
            return Task.FromResult(n);
        }));
        await using var harness = new EngineHarness();
        WorkflowEngineOptions producer = harness.Options(note);
        await using (WorkflowClient client = await WorkflowClient.ConnectAsync(producer))
        {
            await client.EnqueueAsync(queue, note, 1, new() { Priority = 5 });
            await client.EnqueueAsync(queue, note, 2, new() { Priority = 5 });
            await client.EnqueueAsync(queue, note, 3, new() { Priority = 1 });
            await client.EnqueueAsync(queue, note, 4, new() { Priority = 5, WorkflowId = "last" });
        }
        WorkflowEngine engine = await harness.StartAsync(harness.Options(note).AddQueue(queue));
        await engine.Client.Handle<int>("last").ResultAsync();
        Assert.Equal([3, 1, 2, 4], order);
    }

    [Fact]
    public async Task Deduplication_refuses_or_returns_the_live_holder()
    {
        var queue = new WorkflowQueue("dedup");
        var idle = Workflow.Define<int, int>("idle", (_, n) => Task.FromResult(n));
        await using var harness = new EngineHarness();
        await using WorkflowClient client = await WorkflowClient.ConnectAsync(harness.Options(idle));
        WorkflowHandle<int> first = await client.EnqueueAsync(queue, idle, 1, new() { DeduplicationId = "d" });
        var refused = await Assert.ThrowsAsync<DroverException>(() => client.EnqueueAsync(queue, idle, 2, new() { DeduplicationId = "d" }));
        Assert.Equal(ErrorCode.Deduplicated, refused.Code);
        WorkflowHandle<int> same = await client.EnqueueAsync(queue, idle, 3, new() { DeduplicationId = "d", ReturnDeduplicated = true });
        Assert.Equal(first.Id, same.Id);
    }

    [Fact]
    public async Task Messages_are_consumed_once_and_in_order()
    {
        var receiver = Workflow.Define<string>("receiver", async context =>
        {
            string? a = await context.ReceiveAsync<string>("t", TimeSpan.FromSeconds(60));
            string? b = await context.ReceiveAsync<string>("t", TimeSpan.FromSeconds(60));
            string? c = await context.ReceiveAsync<string>("none", TimeSpan.FromMilliseconds(5));
            return $"{a}{b}{c ?? "-"}";
        });
        var sender = Workflow.Define<string, bool>("sender", async (context, to) =>
        {
            await context.SendAsync(to, "1", "t");
            await context.SendAsync(to, "2", "t");
            return true;
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(receiver, sender);
        WorkflowHandle<string> handle = await engine.Client.StartAsync(receiver);
        await (await engine.Client.StartAsync(sender, handle.Id)).ResultAsync();
        Assert.Equal("12-", await handle.ResultAsync());
    }

    [Fact]
    public async Task P5_a_transaction_commits_with_its_step_or_leaves_nothing()
    {
        var transacting = Workflow.Define<bool, long>("transacting", async (context, fail) =>
        {
            await context.TransactAsync("table", tx => tx.Session.Execute("CREATE TABLE IF NOT EXISTS t (n INTEGER)"));
            try
            {
                await context.TransactAsync("insert", tx =>
                {
                    tx.Session.Execute("INSERT INTO t (n) VALUES (1)");
                    return fail ? throw new InvalidOperationException("no") : 1;
                });
            }
            catch (StepFailedException)
            {
            }
            return await context.TransactAsync("count", tx => tx.Session.Number("SELECT count(*) FROM t"));
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(transacting);
        Assert.Equal(0, await (await engine.Client.StartAsync(transacting, true)).ResultAsync());
        Assert.Equal(1, await (await engine.Client.StartAsync(transacting, false)).ResultAsync());
    }

    [Fact]
    public async Task Engine_calls_inside_a_transaction_are_refused()
    {
        WorkflowClient? outer = null;
        var nested = Workflow.Define<bool>("nested", async context => await context.TransactAsync("tx", _ =>
        {
            outer!.SendAsync("x", 1).GetAwaiter().GetResult();
            return true;
        }));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(nested);
        outer = engine.Client;
        var error = await Assert.ThrowsAsync<WorkflowFailedException>(async () => await (await engine.Client.StartAsync(nested)).ResultAsync());
        Assert.Contains("tx.Enqueue", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Continue_as_new_hands_over_in_one_commit_and_awaiting_follows()
    {
        Workflow<int, int>? counter = null;
        counter = Workflow.Define<int, int>("counter", async (context, n) =>
        {
            int next = await context.StepAsync("next", _ => Task.FromResult(n + 1));
            return next >= 5 ? next : await context.ContinueAsNewAsync(counter!, next);
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(counter);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(counter, 0, new() { WorkflowId = "count" });
        Assert.Equal(5, await handle.ResultAsync());
        Assert.Equal(["count", "count:c2", "count:c3", "count:c4", "count:c5"],
            (await engine.Client.ListAsync(new() { Name = "counter" })).Select(w => w.Id));
    }

    [Fact]
    public async Task Cancel_reaches_a_running_step_and_resume_goes_on_from_the_recorded_steps()
    {
        var begun = new TaskCompletionSource();
        int first = 0;
        bool block = true;
        var workflow = Workflow.Define<int>("cancellable", async context =>
        {
            int a = await context.StepAsync("a", _ => Task.FromResult(Interlocked.Increment(ref first)));
            await context.StepAsync("b", async step =>
            {
                if (!block)
                    return;
                begun.TrySetResult();
                await Task.Delay(Timeout.Infinite, step.CancellationToken);
            });
            return a;
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        await begun.Task;
        Assert.Equal([handle.Id], await engine.Client.CancelAsync([handle.Id]));
        var error = await Assert.ThrowsAsync<DroverException>(() => handle.ResultAsync());
        Assert.Equal(ErrorCode.Cancelled, error.Code);
        block = false;
        Assert.Equal([handle.Id], await engine.Client.ResumeAsync([handle.Id]));
        Assert.Equal(1, await handle.ResultAsync());
        Assert.Equal(1, first);
        Assert.Empty(await engine.Client.ResumeAsync([handle.Id]));
    }

    [Fact]
    public async Task A_timeout_cancels_by_the_deadline()
    {
        var slow = Workflow.Define<int>("slow", async context =>
        {
            await context.SleepAsync(TimeSpan.FromHours(1));
            return 1;
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(slow);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(slow, new() { Timeout = TimeSpan.FromMilliseconds(50) });
        var error = await Assert.ThrowsAsync<DroverException>(() => handle.ResultAsync());
        Assert.Equal(ErrorCode.Cancelled, error.Code);
    }

    [Fact]
    public async Task A_stopped_host_interrupts_without_an_outcome_and_the_next_start_resumes()
    {
        var begun = new TaskCompletionSource();
        bool block = true;
        int first = 0;
        var workflow = Workflow.Define<int>("interrupted", async context =>
        {
            int a = await context.StepAsync("a", _ => Task.FromResult(Interlocked.Increment(ref first)));
            await context.StepAsync("b", async step =>
            {
                begun.TrySetResult();
                if (block)
                    await Task.Delay(Timeout.Infinite, step.CancellationToken);
            });
            return a;
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        await begun.Task;
        await engine.DisposeAsync();
        block = false;
        WorkflowEngine next = await harness.StartAsync(workflow);
        Assert.Equal(1, await next.Client.Handle<int>(handle.Id).ResultAsync());
        Assert.Equal(1, first);
        Assert.Single(await next.Client.StepsAsync(handle.Id), s => s.Name == "a");
    }

    [Fact]
    public async Task A_durable_sleep_keeps_its_wake_up_time_over_a_restart()
    {
        var sleeper = Workflow.Define<int>("sleeper", async context =>
        {
            await context.SleepAsync(TimeSpan.FromMilliseconds(300));
            return 1;
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(sleeper);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(sleeper);
        await Eventually.TrueAsync(async () => (await engine.Client.StepsAsync(handle.Id)).Count == 1, "the timer is recorded");
        string until = (await engine.Client.StepsAsync(handle.Id))[0].Output!;
        await engine.DisposeAsync();
        WorkflowEngine next = await harness.StartAsync(sleeper);
        Assert.Equal(1, await next.Client.Handle<int>(handle.Id).ResultAsync());
        Assert.Equal(until, (await next.Client.StepsAsync(handle.Id))[0].Output);
    }

    [Fact]
    public async Task V02_code_that_changed_under_a_running_workflow_is_refused_by_name()
    {
        var begun = new TaskCompletionSource();
        var before = Workflow.Define<int>("changed", async context =>
        {
            await context.StepAsync("old", _ => Task.FromResult(1));
            await context.StepAsync("block", async step =>
            {
                begun.TrySetResult();
                await Task.Delay(Timeout.Infinite, step.CancellationToken);
            });
            return 1;
        });
        var after = Workflow.Define<int>("changed", async context => await context.StepAsync("new", _ => Task.FromResult(2)));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(before);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(before);
        await begun.Task;
        await engine.DisposeAsync();
        WorkflowEngine next = await harness.StartAsync(after);
        var error = await Assert.ThrowsAsync<WorkflowFailedException>(() => next.Client.Handle<int>(handle.Id).ResultAsync());
        Assert.Equal(ErrorCode.NonDeterminism, error.Code);
        Assert.Contains("'old'", error.Message, StringComparison.Ordinal);
        Assert.Contains("'new'", error.Message, StringComparison.Ordinal);
    }
}
