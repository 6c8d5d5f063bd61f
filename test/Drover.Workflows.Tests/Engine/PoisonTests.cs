using Drover.TestKit;
using Drover.Workflows.Storage;

namespace Drover.Workflows.Tests.Engine;

public sealed class PoisonTests
{
    private static readonly TaskCompletionSource Never = new();
    private static int s_begun;

    // A living executor whose work is taken counts as a recovery, as a crash does.
    private static async Task<WorkflowEngine> RecoverAsync(EngineHarness harness, WorkflowEngine from, WorkflowDefinition workflow)
    {
        WorkflowEngine next = await harness.StartAsync(workflow);
        Assert.InRange(await next.RecoverExecutorsAsync([from.ExecutorId]), 0, 1);
        await from.DisposeAsync();
        return next;
    }

    private static async Task<(int Recoveries, WorkflowState State)> RecoverUntilEndAsync(EngineHarness harness, WorkflowDefinition workflow, string id, int most)
    {
        int before = Volatile.Read(ref s_begun);
        WorkflowEngine engine = await harness.StartAsync(workflow);
        for (int recovery = 0; ; recovery++)
        {
            WorkflowState state = WorkflowState.Enqueued;
            int begun = recovery + 1;
            await Eventually.TrueAsync(async () =>
            {
                WorkflowStatus? status = await engine.Client.StatusAsync(id);
                state = status!.State;
                // The row alone does not tell: a claim that finds poison is pending for a moment too.
                return status.IsEnded || Volatile.Read(ref s_begun) - before >= begun;
            }, $"recovery {begun} runs");
            if (state == WorkflowState.MaxRecoveryAttemptsExceeded || recovery == most)
            {
                await engine.DisposeAsync();
                return (recovery, state);
            }
            engine = await RecoverAsync(harness, engine, workflow);
        }
    }

    private static Workflow<int> Stuck(WorkflowLimits limits) => Workflow.Define<int>("stuck", async context =>
    {
        Interlocked.Increment(ref s_begun);
        await context.StepAsync("never", step => Never.Task.WaitAsync(step.CancellationToken));
        return 1;
    }, limits);

    private static async Task EnqueueAsync(EngineHarness harness, Workflow<int> workflow)
    {
        await using WorkflowClient client = await WorkflowClient.ConnectAsync(harness.Options(workflow));
        await client.EnqueueAsync(new WorkflowQueue(SystemDatabase.InternalQueue), workflow, new() { WorkflowId = "w" });
    }

    [Fact]
    public async Task Stalled_recoveries_dead_letter_and_resume_begins_the_count_again()
    {
        var stuck = Stuck(new() { MaxRecoveryAttempts = null, MaxStalledRecoveries = 4 });
        await using var harness = new EngineHarness();
        await EnqueueAsync(harness, stuck);
        Assert.Equal((4, WorkflowState.MaxRecoveryAttemptsExceeded), await RecoverUntilEndAsync(harness, stuck, "w", 10));
        await using (WorkflowClient client = await WorkflowClient.ConnectAsync(harness.Options(stuck)))
        {
            Assert.Equal(ErrorCode.DeadLettered, (await Assert.ThrowsAsync<DroverException>(() => client.Handle<int>("w").ResultAsync())).Code);
            Assert.Equal(["w"], await client.ResumeAsync(["w"]));
        }
        Assert.Equal((4, WorkflowState.MaxRecoveryAttemptsExceeded), await RecoverUntilEndAsync(harness, stuck, "w", 10));
    }

    [Fact]
    public async Task Recovery_attempts_dead_letter_as_in_the_DBOS_SDKs()
    {
        var stuck = Stuck(new() { MaxRecoveryAttempts = 3, MaxStalledRecoveries = null });
        await using var harness = new EngineHarness();
        await EnqueueAsync(harness, stuck);
        Assert.Equal((4, WorkflowState.MaxRecoveryAttemptsExceeded), await RecoverUntilEndAsync(harness, stuck, "w", 10));
    }

    [Fact]
    public async Task Without_limits_nothing_is_dead_lettered()
    {
        var stuck = Stuck(WorkflowLimits.None);
        await using var harness = new EngineHarness();
        await EnqueueAsync(harness, stuck);
        Assert.Equal((25, WorkflowState.Pending), await RecoverUntilEndAsync(harness, stuck, "w", 25));
    }

    [Fact]
    public async Task A_sleeper_is_not_blamed_for_the_crashes_of_its_process()
    {
        var sleeper = Workflow.Define<int>("stuck", async context =>
        {
            Interlocked.Increment(ref s_begun);
            await context.SleepAsync(TimeSpan.FromDays(1));
            return 1;
        }, new() { MaxRecoveryAttempts = null, MaxStalledRecoveries = 2 });
        await using var harness = new EngineHarness();
        await EnqueueAsync(harness, sleeper);
        WorkflowEngine first = await harness.StartAsync(sleeper);
        await Eventually.TrueAsync(async () => (await first.Client.StepsAsync("w")).Count == 1, "it sleeps");
        await first.DisposeAsync();
        Assert.Equal((5, WorkflowState.Pending), await RecoverUntilEndAsync(harness, sleeper, "w", 5));
    }
}
