using Drover.TestKit;
using Drover.Workflows.Storage;
using Microsoft.Data.Sqlite;

namespace Drover.Workflows.Tests.Engine;

/// <summary>What is recorded as a step's error (the user's own), and what only interrupts an attempt (all else).</summary>
[Trait("Speed", "slow")]
public sealed class InterruptionTests
{
    private static Task<int> TriggerAsync(WorkflowEngine engine, string name, string when) => engine.Client.TransactAsync(tx => tx.Session.Execute(
        $"CREATE TRIGGER {name} BEFORE {when} BEGIN SELECT RAISE(ABORT, 'refused'); END"));

    private static Task<int> DropAsync(WorkflowEngine engine, string name) =>
        engine.Client.TransactAsync(tx => tx.Session.Execute($"DROP TRIGGER {name}"));

    [Fact]
    public async Task P1_a_give_back_that_fails_once_is_made_good_while_the_process_lives()
    {
        int runs = 0;
        var workflow = Workflow.Define<int>("refused", async context => await context.StepAsync("s", _ => Task.FromResult(Interlocked.Increment(ref runs))));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        await TriggerAsync(engine, "no_step", "INSERT ON operation_outputs");
        await TriggerAsync(engine, "no_give_back", "UPDATE ON workflow_status WHEN NEW.status = 'ENQUEUED'");
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        await Eventually.TrueAsync(() => Volatile.Read(ref runs) == 1 && engine.Attempts == 0, "the attempt ends and is not given back");
        Assert.Equal(WorkflowState.Pending, (await handle.StatusAsync())!.State);
        await DropAsync(engine, "no_step");
        await DropAsync(engine, "no_give_back");
        Assert.Equal(2, await handle.ResultAsync().WaitAsync(Eventually.Bound));
    }

    [Fact]
    public async Task P1_a_workflow_owned_by_a_living_executor_without_an_attempt_is_given_back_and_one_with_an_attempt_is_not()
    {
        var gate = new TaskCompletionSource();
        int runs = 0;
        var workflow = Workflow.Define<int>("waits", async context => await context.StepAsync("s", async step =>
        {
            Interlocked.Increment(ref runs);
            await gate.Task.WaitAsync(step.CancellationToken);
            return 1;
        }));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int> alive = await engine.Client.StartAsync(workflow);
        // As a start leaves it whose answer was lost.
        await engine.Database.InsertAsync(new NewWorkflow
        {
            Id = "orphan", Name = "waits", Inputs = "{}", Version = engine.ApplicationVersion, ExecutorId = engine.ExecutorId,
        });
        Assert.True(await engine.GiveBackOrphansAsync(CancellationToken.None));
        Assert.False(await engine.GiveBackOrphansAsync(CancellationToken.None));
        gate.SetResult();
        Assert.Equal(1, await engine.Client.Handle<int>("orphan").ResultAsync().WaitAsync(Eventually.Bound));
        Assert.Equal(1, await alive.ResultAsync().WaitAsync(Eventually.Bound));
        Assert.Equal(2, runs);
    }

    [Fact]
    public async Task P1_an_error_of_one_claimed_workflow_does_not_lose_the_others_of_its_batch()
    {
        var queue = new WorkflowQueue("q");
        var plain = Workflow.Define<int, int>("plain", (_, n) => Task.FromResult(n));
        var poison = Workflow.Define<int>("poison", _ => Task.FromResult(1), new() { MaxRecoveryAttempts = 3 });
        await using var harness = new EngineHarness();
        WorkflowEngine enqueues = await harness.StartAsync();
        WorkflowHandle<int> poisoned = await enqueues.Client.EnqueueAsync(queue, poison, new() { WorkflowId = "poisoned" });
        List<WorkflowHandle<int>> others = [];
        for (int i = 0; i < 20; i++)
            others.Add(await enqueues.Client.EnqueueAsync(queue, plain, i));
        await enqueues.Client.TransactAsync(tx => tx.Session.Execute("UPDATE workflow_status SET recovery_attempts = 50 WHERE workflow_uuid = 'poisoned'"));
        await TriggerAsync(enqueues, "no_dead_letter", "UPDATE ON workflow_status WHEN NEW.status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'");

        WorkflowEngine engine = await harness.StartAsync(harness.Options(plain, poison).AddQueue(queue));
        for (int i = 0; i < others.Count; i++)
            Assert.Equal(i, await engine.Client.Handle<int>(others[i].Id).ResultAsync().WaitAsync(Eventually.Bound));
        await DropAsync(engine, "no_dead_letter");
        await Eventually.TrueAsync(async () => (await engine.Client.StatusAsync(poisoned.Id))!.State == WorkflowState.MaxRecoveryAttemptsExceeded,
            "the poisoned one is set aside in the end");
    }

    // A clock of which the monotonic part can be pushed: what a process sees that was stopped for a while.
    private sealed class StoppedForAWhile : TimeProvider
    {
        private long _skipped;

        public void Skip(TimeSpan time) => Interlocked.Add(ref _skipped, (long)(time.TotalSeconds * TimestampFrequency));

        public override long GetTimestamp() => System.GetTimestamp() + Interlocked.Read(ref _skipped);
    }

    [Fact]
    public async Task F7_S12_a_transaction_that_takes_too_long_is_undone_and_tried_again_not_recorded()
    {
        var clock = new StoppedForAWhile();
        int runs = 0;
        var workflow = Workflow.Define<long>("slow", async context => await context.TransactAsync("t", tx =>
        {
            tx.Session.Execute("INSERT INTO t (n) VALUES (1)");
            if (Interlocked.Increment(ref runs) == 1)
                clock.Skip(TimeSpan.FromSeconds(30));
            return tx.Session.Number("SELECT count(*) FROM t");
        }));
        await using var harness = new EngineHarness();
        WorkflowEngineOptions options = harness.Options(workflow);
        options.Time = clock;
        WorkflowEngine engine = await harness.StartAsync(options);
        await engine.Client.TransactAsync(tx => tx.Session.Execute("CREATE TABLE t (n INTEGER)"));
        WorkflowHandle<long> handle = await engine.Client.StartAsync(workflow);
        Assert.Equal(1, await handle.ResultAsync().WaitAsync(Eventually.Bound));
        Assert.Equal(2, runs);
        Assert.Null(Assert.Single(await engine.Client.StepsAsync(handle.Id)).Error);
    }

    // SQLite's codes: 5 busy, 7 no memory, 8 read-only, 10 I/O, 11 corrupt, 13 full.
    [Theory]
    [InlineData(5, false)]
    [InlineData(5, true)]
    [InlineData(7, false)]
    [InlineData(7, true)]
    [InlineData(8, false)]
    [InlineData(10, false)]
    [InlineData(10, true)]
    [InlineData(11, false)]
    [InlineData(13, true)]
    public async Task S12_F4_an_error_of_the_database_in_a_transaction_is_tried_again_not_recorded(int code, bool wrapped)
    {
        int runs = 0;
        var workflow = Workflow.Define<long>("trouble", async context => await context.TransactAsync("t", tx =>
        {
            tx.Session.Execute("INSERT INTO t (n) VALUES (1)");
            if (Interlocked.Increment(ref runs) < 3)
            {
                var trouble = new SqliteException("trouble", code);
                throw wrapped ? new InvalidOperationException("mine", trouble) : trouble;
            }
            return tx.Session.Number("SELECT count(*) FROM t");
        }));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        await engine.Client.TransactAsync(tx => tx.Session.Execute("CREATE TABLE t (n INTEGER)"));
        WorkflowHandle<long> handle = await engine.Client.StartAsync(workflow);
        Assert.Equal(1, await handle.ResultAsync().WaitAsync(Eventually.Bound));
        Assert.Equal(3, runs);
        Assert.Null(Assert.Single(await engine.Client.StepsAsync(handle.Id)).Error);
    }

    [Fact]
    public async Task S12_a_body_that_hides_the_end_of_its_transaction_records_nothing()
    {
        int runs = 0;
        var workflow = Workflow.Define<long>("hides", async context => await context.TransactAsync("t", tx =>
        {
            if (Interlocked.Increment(ref runs) == 1)
                tx.Session.Execute("ROLLBACK");
            return 1L;
        }));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<long> handle = await engine.Client.StartAsync(workflow);
        Assert.Equal(1, await handle.ResultAsync().WaitAsync(Eventually.Bound));
        Assert.Equal(2, runs);
    }

    [Theory]
    [InlineData("own")]
    [InlineData("timeout")]
    [InlineData("unavailable")]
    [InlineData("constraint")]
    [InlineData("json")]
    public async Task S12_an_error_of_the_users_own_code_in_a_transaction_is_recorded_once_and_undoes_it(string kind)
    {
        int runs = 0;
        var workflow = Workflow.Define<double>("fails", async context => await context.TransactAsync("t", tx =>
        {
            Interlocked.Increment(ref runs);
            tx.Session.Execute("INSERT INTO t (n) VALUES (1)");
            switch (kind)
            {
                case "timeout":
                    throw new DroverException(ErrorCode.Timeout, "mine");
                case "unavailable":
                    throw new DroverException(ErrorCode.Unavailable, "mine");
                case "constraint":
                    return tx.Session.Execute("INSERT INTO t (n) VALUES (1)");
                case "json":
                    return double.NaN;
                default:
                    throw new InvalidOperationException("mine");
            }
        }));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        await engine.Client.TransactAsync(tx => tx.Session.Execute("CREATE TABLE t (n INTEGER UNIQUE)"));
        WorkflowHandle<double> handle = await engine.Client.StartAsync(workflow);
        await Assert.ThrowsAsync<WorkflowFailedException>(() => handle.ResultAsync().WaitAsync(Eventually.Bound));
        Assert.Equal(1, runs);
        Assert.NotNull(Assert.Single(await engine.Client.StepsAsync(handle.Id)).Error);
        Assert.Equal(0, await engine.Client.ReadAsync(s => s.Number("SELECT count(*) FROM t")));
    }

    private sealed record NotInAnyContext(int N);

    [Fact]
    public async Task P1_a_result_that_cannot_be_written_is_the_steps_recorded_error()
    {
        int runs = 0;
        var unknown = Workflow.Define<int>("unknown-type", async context => (await context.StepAsync("s", _ =>
            Task.FromResult(new NotInAnyContext(Interlocked.Increment(ref runs))))).N);
        var number = Workflow.Define<double>("not-a-number", async context => await context.StepAsync("s", _ =>
        {
            Interlocked.Increment(ref runs);
            return Task.FromResult(double.NaN);
        }));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(unknown, number);
        WorkflowHandle<int> first = await engine.Client.StartAsync(unknown);
        WorkflowHandle<double> second = await engine.Client.StartAsync(number);
        await Assert.ThrowsAsync<WorkflowFailedException>(() => first.ResultAsync().WaitAsync(Eventually.Bound));
        await Assert.ThrowsAsync<WorkflowFailedException>(() => second.ResultAsync().WaitAsync(Eventually.Bound));
        Assert.Equal(2, runs);
        Assert.Contains(nameof(NotInAnyContext), Assert.Single(await engine.Client.StepsAsync(first.Id)).Error, StringComparison.Ordinal);
        Assert.NotNull(Assert.Single(await engine.Client.StepsAsync(second.Id)).Error);
    }

    [Fact]
    public async Task P1_a_retry_filter_that_throws_fails_the_step_and_a_short_longest_pause_never_overflows()
    {
        var filter = Workflow.Define<int>("filter", async context => await context.StepAsync<int>("s", _ => throw new InvalidOperationException("step"),
            new StepOptions { Attempts = 3, RetryIf = _ => throw new InvalidOperationException("filter") }));
        var often = Workflow.Define<int>("often", async context => await context.StepAsync<int>("s", _ => throw new InvalidOperationException("step"),
            new StepOptions { Attempts = 120, MaxBackoff = TimeSpan.FromMilliseconds(1) }));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(filter, often);
        WorkflowHandle<int> first = await engine.Client.StartAsync(filter);
        WorkflowHandle<int> second = await engine.Client.StartAsync(often);
        Assert.Equal("filter", (await Assert.ThrowsAsync<WorkflowFailedException>(() => first.ResultAsync().WaitAsync(Eventually.Bound))).Message);
        Assert.Equal("step", (await Assert.ThrowsAsync<WorkflowFailedException>(() => second.ResultAsync().WaitAsync(Eventually.Bound))).Message);
    }

    // Half a character is what cutting a text at a fixed length leaves.
    [Fact]
    public async Task V04_half_a_character_in_a_result_or_an_error_keeps_no_workflow_from_its_end()
    {
        const string half = "cut \ud83d";
        int runs = 0;
        var result = Workflow.Define<string>("result", async context => await context.StepAsync("s", _ =>
        {
            Interlocked.Increment(ref runs);
            return Task.FromResult(half);
        }));
        var error = Workflow.Define<string>("error", async context => await context.TransactAsync<string>("t", _ =>
        {
            Interlocked.Increment(ref runs);
            throw new InvalidOperationException(half);
        }));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(result, error);
        WorkflowHandle<string> first = await engine.Client.StartAsync(result);
        WorkflowHandle<string> second = await engine.Client.StartAsync(error);
        Assert.StartsWith("cut", await first.ResultAsync().WaitAsync(Eventually.Bound), StringComparison.Ordinal);
        Assert.StartsWith("cut", (await Assert.ThrowsAsync<WorkflowFailedException>(() => second.ResultAsync().WaitAsync(Eventually.Bound))).Message, StringComparison.Ordinal);
        Assert.Equal(2, runs);
    }
}
