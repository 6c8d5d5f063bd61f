using Drover.TestKit;
using Drover.Workflows.Execution;
using Drover.Workflows.Storage;

namespace Drover.Workflows.Tests.Engine;

/// <summary>A former owner's every kind of write, with the token it had.</summary>
public sealed class FateTests
{
    [Theory]
    [InlineData("step")]
    [InlineData("transact")]
    [InlineData("sleep")]
    [InlineData("send")]
    [InlineData("receive")]
    [InlineData("outcome")]
    [InlineData("continue")]
    [InlineData("end-wait")]
    [InlineData("give-back")]
    [InlineData("dead-letter")]
    [InlineData("heartbeat")]
    public async Task Q02_P8_a_write_with_a_former_token_is_refused_and_changes_nothing(string kind)
    {
        var idle = Workflow.Define<int>("idle", async context => await context.ReceiveAsync<int>("never", TimeSpan.FromHours(1)));
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(idle);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(idle, new() { WorkflowId = "w" });
        await engine.Client.SendAsync("w", 1, "t");
        await Eventually.TrueAsync(async () => (await engine.Client.StepsAsync("w")).Count == 1, "it waits");
        string before = await DumpAsync(engine);
        Assert.Equal(RecordFate.Fenced, await WriteAsync(engine, kind));
        Assert.Equal(before, await DumpAsync(engine));
        await engine.Client.CancelAsync([handle.Id]);
        if (kind is not ("end-wait" or "give-back" or "dead-letter" or "heartbeat"))
            Assert.Equal(RecordFate.Cancelled, await WriteAsync(engine, kind));
    }

    private static async Task<RecordFate> WriteAsync(WorkflowEngine engine, string kind)
    {
        const string stale = "former-token";
        SystemDatabase database = engine.Database;
        var step = new StepRecord("w", stale) { StepId = 7, Name = "late", Output = "1", StartedAt = 1, CompletedAt = 2 };
        switch (kind)
        {
            case "step":
                database.Writer.Append(step);
                return await step.Task;
            case "transact":
                return await database.Writer.TransactAsync("w", session => StepRows.Fence(session, "w", stale));
            case "sleep":
                return await database.StartTimerAsync("w", stale, 7, long.MaxValue / 2);
            case "send":
                return await database.SendStepAsync("w", stale, step, "w", "t", "2", "late-message");
            case "receive":
                return (await database.ReceiveAsync("w", stale, 7, "t", null, false, true)).Fate;
            case "outcome":
                return await database.CompleteAsync("w", stale, new Outcome("1", null));
            case "continue":
                return await database.CompleteAsync("w", stale, new Outcome("null", null, new NewWorkflow { Id = "next", Name = "idle", Inputs = "{}", QueueName = "q" }, 7));
            case "end-wait":
                await database.EndWaitAsync("w", stale);
                return RecordFate.Fenced;
            case "give-back":
                return await database.GiveBackAsync("w", stale) ? RecordFate.Done : RecordFate.Fenced;
            case "dead-letter":
                await database.DeadLetterAsync("w", stale);
                return RecordFate.Fenced;
            default:
                return await database.HeartbeatAsync(engine.ExecutorId, stale, 1) ? RecordFate.Done : RecordFate.Fenced;
        }
    }

    private static ValueTask<string> DumpAsync(WorkflowEngine engine) => engine.Client.ReadAsync(s => string.Join('\n', [
        .. s.Query("SELECT workflow_uuid || status || COALESCE(owner_xid, '-') FROM workflow_status ORDER BY 1", r => r.GetString(0)),
        .. s.Query("SELECT function_id || function_name || COALESCE(output, '') FROM operation_outputs ORDER BY 1", r => r.GetString(0)),
        .. s.Query("SELECT message_uuid || consumed FROM notifications ORDER BY 1", r => r.GetString(0)),
        .. s.Query("SELECT workflow_uuid || kind FROM drover_waits ORDER BY 1", r => r.GetString(0))]));

    [Fact]
    public async Task An_executor_that_was_taken_over_starts_and_claims_nothing_more()
    {
        var queue = new WorkflowQueue("q");
        var plain = Workflow.Define<int, int>("plain", async (context, n) => await context.StepAsync("s", _ => Task.FromResult(n)));
        await using var harness = new EngineHarness();
        WorkflowEngineOptions options = harness.Options(plain).AddQueue(queue);
        options.Lease = TimeSpan.FromSeconds(1.5);
        WorkflowEngine zombie = await harness.StartAsync(options);
        WorkflowEngine heir = await harness.StartAsync(plain);
        var lost = new TaskCompletionSource();
        zombie.Lost.Register(lost.SetResult);
        await heir.RecoverExecutorsAsync([zombie.ExecutorId]);
        var refused = await Assert.ThrowsAsync<DroverException>(() => zombie.Client.StartAsync(plain, 1));
        Assert.Equal(ErrorCode.Unavailable, refused.Code);
        WorkflowHandle<int> queued = await zombie.Client.EnqueueAsync(queue, plain, 2);
        await lost.Task.WaitAsync(Eventually.Bound);
        Assert.Equal(WorkflowState.Enqueued, (await queued.StatusAsync())!.State);
        WorkflowEngine next = await harness.StartAsync(harness.Options(plain).AddQueue(queue));
        Assert.Equal(2, await next.Client.Handle<int>(queued.Id).ResultAsync());
    }
}
