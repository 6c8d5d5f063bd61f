using Drover.TestKit;
using Drover.Workflows.Sqlite;
using Microsoft.Data.Sqlite;

namespace Drover.Workflows.Tests.Engine;

/// <summary>A stop ends, whatever the database and the steps do, and acknowledges nothing that was not recorded.</summary>
[Trait("Speed", "slow")]
public sealed class StopTests
{
    // A step that goes on, whatever its token says, until it is let go.
    private sealed class Stubborn(int size = 1)
    {
        private readonly TaskCompletionSource _go = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private int _runs;

        public int Runs => Volatile.Read(ref _runs);

        public CancellationToken Token { get; private set; }

        public Workflow<int> Workflow(string name = "stubborn") => Workflows.Workflow.Define<int>(name, async context =>
            (await context.StepAsync("s", async step =>
            {
                Token = step.CancellationToken;
                Interlocked.Increment(ref _runs);
                await _go.Task;
                return new string('x', size);
            })).Length);

        public void Go() => _go.TrySetResult();
    }

    private static async Task EndsAsync(WorkflowEngine engine)
    {
        await engine.StopAsync().WaitAsync(Eventually.Bound);
        await engine.DisposeAsync().AsTask().WaitAsync(Eventually.Bound);
    }

    [Fact]
    public async Task S11_F4_a_stop_on_a_full_database_ends_and_acknowledges_nothing()
    {
        var step = new Stubborn(500_000);
        Workflow<int> workflow = step.Workflow();
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        await Eventually.TrueAsync(() => step.Runs == 1, "the step runs");
        // The smallest limit that SQLite accepts is the present size: the step's result finds no room.
        await engine.Client.TransactAsync(tx => tx.Session.Number("PRAGMA max_page_count = 1"));
        step.Go();
        await engine.StopAsync().WaitAsync(Eventually.Bound);
        Assert.Empty(await engine.Client.StepsAsync(handle.Id));
        await engine.DisposeAsync().AsTask().WaitAsync(Eventually.Bound);

        WorkflowEngine next = await harness.StartAsync(workflow);
        Assert.Equal(500_000, await next.Client.Handle<int>(handle.Id).ResultAsync().WaitAsync(Eventually.Bound));
        Assert.Equal(2, step.Runs);
    }

    [Fact]
    public async Task S03_F4_a_stop_on_a_database_that_stays_busy_ends_and_the_next_start_takes_over()
    {
        var step = new Stubborn();
        Workflow<int> workflow = step.Workflow();
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        await Eventually.TrueAsync(() => step.Runs == 1, "the step runs");
        Task<int> write;
        await using (var other = new SqliteConnection($"Data Source={harness.DatabasePath};Pooling=False"))
        {
            await other.OpenAsync();
            await using SqliteCommand command = other.CreateCommand();
            command.CommandText = "BEGIN IMMEDIATE";
            await command.ExecuteNonQueryAsync();
            step.Go();
            write = engine.Client.TransactAsync(_ => 1);
            await EndsAsync(engine);
        }
        Assert.Equal(ErrorCode.Unavailable, (await Assert.ThrowsAsync<DroverException>(() => write)).Code);
        WorkflowEngine next = await harness.StartAsync(workflow);
        Assert.Equal(1, await next.Client.Handle<int>(handle.Id).ResultAsync().WaitAsync(Eventually.Bound));
        Assert.Equal(2, step.Runs);
    }

    [Fact]
    public async Task S05_F7_a_stop_ends_while_another_process_holds_the_commit_lock_and_nothing_is_committed_afterwards()
    {
        var step = new Stubborn();
        Workflow<int> workflow = step.Workflow();
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        await Eventually.TrueAsync(() => step.Runs == 1, "the step runs");
        using (FileLock held = FileLock.Open(harness.DatabasePath + ".lock"))
        {
            held.Take();
            Task<int> write = engine.Client.TransactAsync(tx => tx.Session.Execute("CREATE TABLE late (n INTEGER)"));
            step.Go();
            await EndsAsync(engine);
            Assert.Equal(ErrorCode.Unavailable, (await Assert.ThrowsAsync<DroverException>(() => write)).Code);
        }
        WorkflowEngine next = await harness.StartAsync(workflow);
        Assert.Equal(1, await next.Client.Handle<int>(handle.Id).ResultAsync().WaitAsync(Eventually.Bound));
        Assert.Equal(2, step.Runs);
        // The thread that was left behind has had the lock since: the next engine's commits come after it or before it, and its own never.
        Assert.Equal(0, await next.Client.ReadAsync(s => s.Number("SELECT count(*) FROM sqlite_master WHERE name = 'late'")));
    }

    [Fact]
    public async Task S11_a_stop_ends_while_a_transaction_blocks_and_the_transaction_is_never_committed()
    {
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync();
        using var gate = new ManualResetEventSlim();
        var begun = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Task<int> write = engine.Client.TransactAsync(tx =>
        {
            tx.Session.Execute("CREATE TABLE late (n INTEGER)");
            begun.SetResult();
            gate.Wait();
            return 1;
        });
        Task<string?> waiting = engine.Client.TransactAsync(tx => tx.Session.Text("SELECT 'x'"));
        await begun.Task;
        await EndsAsync(engine);
        Assert.Equal(ErrorCode.Unavailable, (await Assert.ThrowsAsync<DroverException>(() => write)).Code);
        Assert.Equal(ErrorCode.Unavailable, (await Assert.ThrowsAsync<DroverException>(() => waiting)).Code);
        gate.Set();
        WorkflowEngine next = await harness.StartAsync();
        Assert.Equal(0, await next.Client.TransactAsync(tx => tx.Session.Number("SELECT count(*) FROM sqlite_master WHERE name = 'late'")));
    }

    [Fact]
    public async Task P1_every_stop_and_dispose_waits_for_the_same_end()
    {
        var step = new Stubborn();
        Workflow<int> workflow = step.Workflow();
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        await Eventually.TrueAsync(() => step.Runs == 1, "the step runs");
        Task[] ends = [engine.StopAsync(), engine.StopAsync(), engine.DisposeAsync().AsTask(), engine.DisposeAsync().AsTask(), engine.StopAsync()];
        await Eventually.TrueAsync(() => step.Token.IsCancellationRequested, "the step is told");
        Assert.All(ends, end => Assert.False(end.IsCompleted));
        step.Go();
        await Task.WhenAll(ends).WaitAsync(Eventually.Bound);
        await engine.StopAsync(new CancellationToken(canceled: true));
        await using WorkflowClient client = await WorkflowClient.ConnectAsync(harness.Options(workflow));
        Assert.NotEqual(WorkflowState.Pending, (await client.StatusAsync(handle.Id))!.State);
        Assert.Equal(0, await client.ReadAsync(s => s.Number("SELECT count(*) FROM drover_executors")));
    }

    [Fact]
    public async Task P1_P8_a_step_that_ignores_its_token_is_left_to_nobody_when_the_caller_waits_no_longer()
    {
        var step = new Stubborn();
        Workflow<int> stubborn = step.Workflow();
        var sleeper = Workflow.Define<int>("sleeper", async context =>
        {
            await context.SleepAsync(TimeSpan.FromDays(1));
            return 1;
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(stubborn, sleeper);
        WorkflowHandle<int> left = await engine.Client.StartAsync(stubborn);
        WorkflowHandle<int> given = await engine.Client.StartAsync(sleeper);
        await Eventually.TrueAsync(() => step.Runs == 1, "the step runs");
        using var patience = new CancellationTokenSource();
        Task stop = engine.StopAsync(patience.Token);
        await Eventually.TrueAsync(() => step.Token.IsCancellationRequested, "the step is told");
        Assert.False(stop.IsCompleted);
        await patience.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => stop.WaitAsync(Eventually.Bound));
        await engine.DisposeAsync().AsTask().WaitAsync(Eventually.Bound);

        WorkflowEngine other = await harness.StartAsync(stubborn, sleeper);
        await Eventually.TrueAsync(async () => await other.Client.StatusAsync(given.Id) is { State: WorkflowState.Pending } status
            && status.ExecutorId == other.ExecutorId, "the sleeper moves");
        WorkflowStatus kept = (await other.Client.StatusAsync(left.Id))!;
        Assert.Equal((WorkflowState.Pending, engine.ExecutorId), (kept.State, kept.ExecutorId));
        step.Go();
        Assert.Equal(1, step.Runs);
        Assert.Empty(await other.Client.StepsAsync(left.Id));
    }

    [Fact]
    public async Task P8_Lost_is_said_once_and_a_callback_that_waits_for_the_stop_holds_nothing_up()
    {
        await using var harness = new EngineHarness();
        WorkflowEngineOptions options = harness.Options();
        options.Lease = TimeSpan.FromMilliseconds(300);
        WorkflowEngine engine = await harness.StartAsync(options);
        int said = 0;
        using CancellationTokenRegistration first = engine.Lost.Register(() =>
        {
            Interlocked.Increment(ref said);
            engine.DisposeAsync().AsTask().GetAwaiter().GetResult();
            throw new InvalidOperationException("mine");
        });
        WorkflowEngine heir = await harness.StartAsync();
        await heir.RecoverExecutorsAsync([engine.ExecutorId]);
        await Eventually.TrueAsync(() => Volatile.Read(ref said) == 1, "the loss is said");
        await engine.DisposeAsync().AsTask().WaitAsync(Eventually.Bound);
        Assert.True(engine.Lost.IsCancellationRequested);
        Assert.Equal(1, said);
    }

    [Fact]
    public async Task P8_an_engine_that_was_stopped_starts_nothing_more()
    {
        var workflow = Workflow.Define<int>("w", _ => Task.FromResult(1));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        await engine.StopAsync();
        Assert.Equal(ErrorCode.Unavailable, (await Assert.ThrowsAsync<DroverException>(() => engine.Client.StartAsync(workflow))).Code);
        Assert.Equal(ErrorCode.IllegalCall, (await Assert.ThrowsAsync<DroverException>(() => engine.StartAsync())).Code);
        Assert.False(engine.Lost.IsCancellationRequested);
    }
}
