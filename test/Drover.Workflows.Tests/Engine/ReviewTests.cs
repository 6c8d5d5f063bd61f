using Drover.TestKit;
using Drover.Workflows.Storage;

namespace Drover.Workflows.Tests.Engine;

/// <summary>Holes that a review found; </summary>
public sealed class ReviewTests
{
    [Fact]
    public async Task A_step_that_blocks_its_thread_holds_up_no_other_acknowledgement()
    {
        using var release = new ManualResetEventSlim();
        int blocked = 0;
        var workflow = Workflow.Define<int, int>("blocking", async (context, n) =>
        {
            await context.StepAsync("first", _ => Task.FromResult(n));
            return await context.StepAsync("second", _ =>
            {
                if (n < 4)
                {
                    Interlocked.Increment(ref blocked);
                    release.Wait();
                }
                return Task.FromResult(n);
            });
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int>[] handles = await Task.WhenAll(Enumerable.Range(0, 64).Select(n => engine.Client.StartAsync(workflow, n)));
        foreach (WorkflowHandle<int> handle in handles[4..])
            await handle.ResultAsync().WaitAsync(Eventually.Bound);
        await Eventually.TrueAsync(() => Volatile.Read(ref blocked) == 4, "four steps block");
        release.Set();
        Assert.Equal(Enumerable.Range(0, 64), await Task.WhenAll(handles.Select(h => h.ResultAsync())));
    }

    [Fact]
    public async Task I10_messages_of_one_sender_keep_their_order_within_a_millisecond()
    {
        const int count = 30;
        var receiver = Workflow.Define<string>("receiver", async context =>
        {
            var got = new List<int>();
            for (int i = 0; i < count; i++)
                got.Add(await context.ReceiveAsync<int>("t", TimeSpan.FromMinutes(2)));
            return string.Join(',', got);
        });
        var sender = Workflow.Define<string, bool>("sender", async (context, to) =>
        {
            for (int i = 0; i < count; i++)
                await context.SendAsync(to, i, "t");
            return true;
        });
        await using var harness = new EngineHarness();
        WorkflowEngineOptions options = harness.Options(receiver, sender);
        options.Time = new FrozenMilliseconds();
        WorkflowEngine engine = await harness.StartAsync(options);
        var queue = new WorkflowQueue("later");
        WorkflowHandle<string> target = await engine.Client.EnqueueAsync(queue, receiver);
        await (await engine.Client.StartAsync(sender, target.Id)).ResultAsync();
        WorkflowEngine serves = await harness.StartAsync(harness.Options(receiver).AddQueue(queue));
        Assert.Equal(string.Join(',', Enumerable.Range(0, count)), await serves.Client.Handle<string>(target.Id).ResultAsync());
    }

    // A clock whose milliseconds never change: the worst case of many sends within one.
    private sealed class FrozenMilliseconds : TimeProvider
    {
        private readonly DateTimeOffset _now = System.GetUtcNow();

        public override DateTimeOffset GetUtcNow() => _now;
    }

    [Fact]
    public async Task A_start_whose_caller_gave_up_waiting_still_runs()
    {
        var workflow = Workflow.Define<int>("given-up", async context => await context.StepAsync("s", _ => Task.FromResult(1)));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        using var gate = new ManualResetEventSlim();
        Task<int> busy = engine.Client.TransactAsync(_ =>
        {
            gate.Wait();
            return 1;
        });
        using var gaveUp = new CancellationTokenSource();
        Task start = engine.Client.StartAsync(workflow, new() { WorkflowId = "w" }, gaveUp.Token);
        await gaveUp.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => start);
        gate.Set();
        await busy;
        await Eventually.TrueAsync(async () => await engine.Client.StatusAsync("w") is { State: WorkflowState.Success }, "it runs although nobody waits");
    }

    [Fact]
    public async Task P1_a_workflow_whose_record_the_database_refused_runs_again_while_the_process_lives()
    {
        int runs = 0;
        var workflow = Workflow.Define<int>("refused", async context => await context.StepAsync("s", _ => Task.FromResult(Interlocked.Increment(ref runs))));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        await engine.Client.TransactAsync(tx => tx.Session.Execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON operation_outputs BEGIN SELECT RAISE(ABORT, 'refused'); END"));
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        await Eventually.TrueAsync(() => Volatile.Read(ref runs) >= 2, "the refused step runs again");
        await engine.Client.TransactAsync(tx => tx.Session.Execute("DROP TRIGGER refuse"));
        Assert.Equal(await handle.ResultAsync().WaitAsync(Eventually.Bound), Volatile.Read(ref runs));
        Assert.Single(await engine.Client.StepsAsync(handle.Id));
    }

    [Fact]
    public async Task An_engine_call_from_a_task_inside_a_transaction_is_refused_instead_of_blocking_the_writer()
    {
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync();
        var error = await Assert.ThrowsAsync<DroverException>(() => engine.Client.TransactAsync(_ =>
        {
            Task.Run(() => engine.Client.CancelAsync(["x"])).GetAwaiter().GetResult();
            return 1;
        }));
        Assert.Equal(ErrorCode.IllegalCall, error.Code);
        Assert.Equal(2, await engine.Client.TransactAsync(_ => 2));
    }

    [Fact]
    public async Task A_successor_whose_id_belongs_to_another_workflow_fails_the_predecessor()
    {
        var other = Workflow.Define<int, int>("other", (_, n) => Task.FromResult(n));
        var next = Workflow.Define<int, int>("next", (_, n) => Task.FromResult(n));
        var first = Workflow.Define<int>("first", async context => await context.ContinueAsNewAsync(next, 1, "taken"));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(other, next, first);
        await (await engine.Client.StartAsync(other, 1, new() { WorkflowId = "taken" })).ResultAsync();
        var error = await Assert.ThrowsAsync<WorkflowFailedException>(async () => await (await engine.Client.StartAsync(first)).ResultAsync());
        Assert.Equal(ErrorCode.Conflict, error.Code);
    }

    [Fact]
    public async Task A_cancellation_callback_that_throws_does_not_keep_the_engine_from_stopping()
    {
        var begun = new TaskCompletionSource();
        var workflow = Workflow.Define<int>("throws", async context => await context.StepAsync("s", async step =>
        {
            using var registration = step.CancellationToken.Register(() => throw new InvalidOperationException("mine"));
            begun.SetResult();
            await Task.Delay(Timeout.Infinite, step.CancellationToken);
            return 1;
        }));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        await begun.Task;
        await engine.StopAsync().WaitAsync(Eventually.Bound);
        Assert.Equal(WorkflowState.Enqueued, (await handle.StatusAsync())!.State);
    }

    [Fact]
    public async Task One_bad_record_of_a_batch_touches_no_neighbour()
    {
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync();
        await engine.Client.TransactAsync(tx => tx.Session.Execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"));
        using var gate = new ManualResetEventSlim();
        Task<int> busy = engine.Client.TransactAsync(_ =>
        {
            gate.Wait();
            return 1;
        });
        // All 64 wait while the writer is busy, so that they are one batch. Number 33 writes, then fails.
        Task<int>[] writes = [.. Enumerable.Range(0, 64).Select(n => engine.Database.Writer.WriteAsync($"{n}", session =>
        {
            session.Execute("INSERT INTO t (n) VALUES (@n)", ("@n", (long)n));
            return n == 33 ? throw new InvalidOperationException("bad record") : n;
        }))];
        long commits = engine.Database.Writer.Commits;
        gate.Set();
        await busy;
        await Assert.ThrowsAsync<InvalidOperationException>(() => writes[33]);
        Assert.Equal(Enumerable.Range(0, 64).Where(n => n != 33), await Task.WhenAll(writes.Where((_, i) => i != 33)));
        Assert.Equal(63, await engine.Client.ReadAsync(s => s.Number("SELECT count(*) FROM t")));
        Assert.InRange(engine.Database.Writer.Commits - commits, 1, 4);
    }

    [Fact]
    public async Task S05_the_log_is_checkpointed_and_starts_again()
    {
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync();
        await engine.Client.TransactAsync(tx => tx.Session.Execute("CREATE TABLE big (n INTEGER PRIMARY KEY, text TEXT)"));
        string text = new('x', 200_000);
        for (long i = 0; i < 600; i++)
        {
            long n = i;
            await engine.Database.Writer.WriteAsync("", s => s.Execute("INSERT INTO big (n, text) VALUES (@n, @t)", ("@n", n), ("@t", text)));
        }
        // 120 MB were written; a log that starts again every 16 MB stays near that size.
        Assert.InRange(new FileInfo(harness.DatabasePath + "-wal").Length, 1, 40_000_000);
        Assert.InRange(new FileInfo(harness.DatabasePath).Length, 80_000_000, long.MaxValue);
    }

    [Theory]
    [InlineData("")]
    [InlineData("ünï漢🙂")]
    public async Task V04_text_survives_the_direct_binding(string text)
    {
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync();
        await engine.Client.TransactAsync(tx => tx.Session.Execute("CREATE TABLE v (t TEXT NOT NULL, n INTEGER, d REAL, b INTEGER, z TEXT)"));
        await engine.Client.TransactAsync(tx => tx.Session.Execute("INSERT INTO v VALUES (@t, @n, @d, @b, @z)",
            ("@t", text), ("@n", long.MinValue), ("@d", 0.1), ("@b", true), ("@z", null)));
        Assert.Equal((text, long.MinValue, 0.1, 1L, true), await engine.Client.ReadAsync(s => s.First("SELECT t, n, d, b, z FROM v",
            r => (r.GetString(0), r.GetInt64(1), r.GetDouble(2), r.GetInt64(3), r.IsDBNull(4)))));
    }
}
