using Drover.TestKit;
using Drover.Workflows;

namespace Drover.Workflows.Tests.Engine;

public sealed class ParallelRuleTests
{
    public static TheoryData<int[]> Orders() => [.. Permutations([0, 1, 2])];

    private static IEnumerable<int[]> Permutations(int[] items) => items.Length == 1
        ? [items]
        : items.SelectMany(i => Permutations([.. items.Where(j => j != i)]).Select(rest => (int[])[i, .. rest]));

    [Theory]
    [MemberData(nameof(Orders))]
    public async Task Three_branches_of_two_steps_are_refused_by_name_in_every_completion_order(int[] order)
    {
        TaskCompletionSource[] gates = [new(), new(), new()];
        async Task Branch(WorkflowContext context, int i)
        {
            await context.StepAsync($"first-{i}", _ => gates[i].Task);
            await context.StepAsync($"second-{i}", _ => Task.CompletedTask);
        }
        var workflow = Workflow.Define<int>("branches", async context =>
        {
            await Task.WhenAll(Branch(context, 0), Branch(context, 1), Branch(context, 2));
            return 1;
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        foreach (int i in order)
        {
            int done = (await engine.Client.StepsAsync(handle.Id)).Count;
            gates[i].SetResult();
            await Eventually.TrueAsync(async () => (await engine.Client.StepsAsync(handle.Id)).Count > done
                || (await handle.StatusAsync())!.IsEnded, "the branch's first step is recorded");
        }
        var error = await Assert.ThrowsAsync<WorkflowFailedException>(() => handle.ResultAsync());
        Assert.Equal(ErrorCode.NonDeterminism, error.Code);
        Assert.Matches("'second-[012]' after step [012] .*'second-[012]' after step [012]", error.Message);
    }

    [Fact]
    public async Task Parallel_steps_started_in_order_keep_their_numbers_and_may_be_followed()
    {
        var workflow = Workflow.Define<int>("parallel", async context =>
        {
            Task<int>[] steps = [.. Enumerable.Range(0, 8).Select(i => context.StepAsync($"p{i}", async _ =>
            {
                await Task.Yield();
                return i;
            }))];
            int sum = (await Task.WhenAll(steps)).Sum();
            return sum + await context.StepAsync("after", _ => Task.FromResult(100));
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        Assert.Equal(128, await handle.ResultAsync());
        Assert.Equal(["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "after"], (await engine.Client.StepsAsync(handle.Id)).Select(s => s.Name));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task One_branch_may_go_on_and_the_forking_method_after_it_was_awaited(bool branchFirst)
    {
        TaskCompletionSource branch = new(), single = new();
        async Task Two(WorkflowContext context)
        {
            await context.StepAsync("a1", _ => branch.Task);
            await context.StepAsync("a2", _ => Task.CompletedTask);
        }
        var workflow = Workflow.Define<int>("fork", async context =>
        {
            Task two = Two(context);
            Task y = context.StepAsync("y", _ => single.Task);
            await Task.WhenAll(two, y);
            return await context.StepAsync("z", _ => Task.FromResult(7));
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        WorkflowHandle<int> handle = await engine.Client.StartAsync(workflow);
        (branchFirst ? branch : single).SetResult();
        await Eventually.TrueAsync(async () => (await engine.Client.StepsAsync(handle.Id)).Count == (branchFirst ? 2 : 1), "the first of them is recorded");
        (branchFirst ? single : branch).SetResult();
        Assert.Equal(7, await handle.ResultAsync());
        Assert.Equal(["a1", "y", "a2", "z"], (await engine.Client.StepsAsync(handle.Id)).Select(s => s.Name));
    }

    [Fact]
    public async Task A_call_that_left_the_body_is_refused()
    {
        var workflow = Workflow.Define<int>("escaped", async context =>
        {
            await context.StepAsync("a", _ => Task.CompletedTask).ConfigureAwait(false);
            return await Task.Run(() => context.StepAsync("b", _ => Task.FromResult(1)));
        });
        await using var harness = new EngineHarness();
        WorkflowEngine engine = await harness.StartAsync(workflow);
        var error = await Assert.ThrowsAsync<WorkflowFailedException>(async () => await (await engine.Client.StartAsync(workflow)).ResultAsync());
        Assert.Equal(ErrorCode.IllegalCall, error.Code);
    }
}
